"""Slots over changing clocks, and the reference of a window's own hours."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from detectors.layout import FeatureCells, Kind
from detectors.scores import feature_scores
from detectors.seasons import SLOTS, BySlot, Calendar, expectation

HOUR = timedelta(hours=1)
LEVELS = FeatureCells("c", Kind.CATEGORICAL, levels=("a", "b"))


def hours_from(start: datetime, number: int) -> list[datetime]:
    return [start + i * HOUR for i in range(number)]


def by_slot(rows: dict[int, list[float]], hours: float = 20.0) -> BySlot:
    """Counts in the cells a and b of the slots named."""
    counts = np.zeros((SLOTS, LEVELS.size))
    for slot, (a, b) in rows.items():
        counts[slot, :2] = a, b
    return BySlot(counts, np.where(counts.any(axis=1), hours, 0.0))


def test_weekdays_and_weekends_have_slots_of_their_own() -> None:
    friday = datetime(2026, 1, 2, 22, tzinfo=UTC)
    assert Calendar().slots(hours_from(friday, 4)).tolist() == [22, 23, 24, 25]


def test_a_holiday_is_like_a_weekend() -> None:
    tuesday = datetime(2026, 1, 6, 10, tzinfo=UTC)
    assert Calendar(holidays=frozenset({date(2026, 1, 6)})).slots([tuesday, tuesday + 24 * HOUR]).tolist() == [34, 10]


def test_days_begin_where_the_model_is_used() -> None:
    """Saturday 05:30 in India while it is still Saturday 00:00 in UTC; Friday evening in New York."""
    at = [datetime(2026, 1, 3, 0, tzinfo=UTC)]
    assert Calendar("Asia/Kolkata").slots(at).tolist() == [29]
    assert Calendar("America/New_York").slots(at).tolist() == [19]


def test_the_hour_on_the_wall_counts_when_clocks_change() -> None:
    spring = hours_from(datetime(2026, 3, 28, 23, tzinfo=UTC), 4)
    autumn = hours_from(datetime(2026, 10, 24, 22, tzinfo=UTC), 5)
    berlin = Calendar("Europe/Berlin")
    assert berlin.slots(spring).tolist() == [24, 25, 27, 28]
    assert berlin.slots(autumn).tolist() == [24, 25, 26, 26, 27]


def test_a_working_hour_keeps_its_slot_over_the_change() -> None:
    berlin = Calendar("Europe/Berlin")
    before, after = datetime(2026, 3, 27, 8, tzinfo=UTC), datetime(2026, 3, 30, 7, tzinfo=UTC)
    assert berlin.slots([before, after]).tolist() == [9, 9]


def test_hours_add_up_by_slot() -> None:
    found = BySlot.of(np.array([[1, 2], [3, 4], [0, 0]]), [5, 5, 6])
    assert found.counts[5].tolist() == [4, 6]
    assert found.hours[5] == 2
    assert found.hours[6] == 0
    assert found.part(slice(1, 2)).counts[5].tolist() == [6]


def test_another_mix_of_hours_is_no_drift() -> None:
    """Level b is common by night. A window with far more traffic by night has more of it, as has its reference."""
    past = by_slot({3: [400, 3_600], 12: [18_000, 2_000]})
    window = by_slot({3: [100, 900], 12: [90, 10]}, 1.0)
    found = expectation(window, past)
    like = feature_scores(LEVELS, found.baseline, found.current)
    pooled = feature_scores(LEVELS, past.counts.sum(axis=0), window.counts.sum(axis=0))
    assert min(s.p_value for s in like) > 0.9
    assert min(s.p_value for s in pooled) < 1e-100


def test_the_past_counts_as_many_rows_as_make_it_as_sure_as_it_is() -> None:
    rng = np.random.default_rng(31)
    share, n, m = np.array([0.2, 0.6]), np.array([300, 100]), np.array([200, 3_000])
    z = []
    for _ in range(3_000):
        b, past_b = rng.binomial(n, share), rng.binomial(m, share)
        window = by_slot({i: [n[i] - b[i], b[i]] for i in (0, 1)})
        past = by_slot({i: [m[i] - past_b[i], past_b[i]] for i in (0, 1)})
        found = expectation(window, past)
        p, q = found.current[1] / 400, found.baseline[1] / found.baseline.sum()
        z.append((p - q) ** 2 / (1 / 400 + 1 / found.baseline.sum()))
    within = float(np.sum(share * (1 - share) * n) / 400)
    assert np.mean(z) == pytest.approx(within, rel=0.08)


def test_hours_without_a_past_are_left_out_and_told() -> None:
    found = expectation(by_slot({3: [10, 10], 4: [30, 30]}), by_slot({3: [100, 100]}))
    assert found.current.sum() == 20
    assert found.covered == pytest.approx(0.25)


def test_a_window_without_a_past_is_empty() -> None:
    found = expectation(by_slot({3: [10, 10]}), by_slot({4: [100, 100]}))
    assert (found.current.sum(), found.baseline.sum(), found.exposure, found.covered) == (0, 0, 0, 0)


@pytest.mark.parametrize(("days", "more"), [(1.0, 2.0), (20.0, 1.05)])
def test_a_past_of_few_days_exposes_more(days: float, more: float) -> None:
    found: Any = expectation(by_slot({3: [50, 50]}), by_slot({3: [150, 150]}, days))
    assert found.exposure == pytest.approx(100 * 300 / 400 * more)
