"""Shares of failed requests and probes, and the interval that they have in common."""

from datetime import UTC, datetime

import pytest
import scipy.stats as st

from detectors.errors import errors_finding
from detectors.finding import Status, Subject, Window
from detectors.health import health_finding
from detectors.intervals import above, wilson

WINDOW = Window("production", "fraud", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_published_examples(hits: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3."""
    assert wilson(hits, total) == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_is_scipys_and_mirrors() -> None:
    for hits, total in [(0, 1), (1, 1), (3, 7), (200, 200), (12_345, 1_000_000)]:
        expected = st.binomtest(hits, total).proportion_ci(0.95, method="wilson")
        low, high = wilson(hits, total)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert wilson(total - hits, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_needs_rows() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        wilson(0, 0)


def test_error_share_of_all_events() -> None:
    finding = errors_finding(WINDOW, Subject(server="a"), 15, 148, 100)
    assert finding.status is Status.MEASURED
    assert (finding.detector, finding.n) == ("errors", 148)
    assert finding.value == pytest.approx(15 / 148)
    assert (finding.low, finding.high) == wilson(15, 148)


def test_error_share_of_too_few_events_is_shown_but_not_judged() -> None:
    finding = errors_finding(WINDOW, Subject(), 3, 10, 200)
    assert finding.status is Status.NOT_ENOUGH_DATA
    assert finding.value == pytest.approx(0.3)
    assert finding.low is None
    assert errors_finding(WINDOW, Subject(), 0, 0, 0).value is None


def test_probes_of_a_server() -> None:
    finding = health_finding(WINDOW, Subject(server="a"), 2, 60, 12.5)
    assert (finding.detector, finding.n) == ("health", 60)
    assert finding.value == pytest.approx(2 / 60)
    assert (finding.low, finding.high) == wilson(2, 60)
    assert finding.effects == {"latency_p95_ms": 12.5}


def test_a_server_that_never_answered_has_no_latency() -> None:
    finding = health_finding(WINDOW, Subject(server="a"), 60, 60, None)
    assert finding.value == 1.0
    assert finding.effects == {}


def test_a_server_without_probes_is_not_healthy_but_unknown() -> None:
    finding = health_finding(WINDOW, Subject(server="a"), 0, 0, None)
    assert finding.status is Status.NOT_ENOUGH_DATA
    assert finding.value is None


@pytest.mark.parametrize(("hits", "total", "limit"), [(3, 3, 0.5), (0, 9, 0.1), (12, 60, 0.1), (2_100, 100_000, 0.02)])
def test_the_p_value_of_a_limit_is_the_binomials_upper_tail(hits: int, total: int, limit: float) -> None:
    assert above(hits, total, limit) == pytest.approx(st.binom.sf(hits - 1, total, limit), rel=1e-9)
    assert above(hits / total * total, total, limit) == pytest.approx(above(hits, total, limit), rel=1e-9)


def test_effective_numbers_of_rows_lie_between_whole_ones() -> None:
    assert above(13, 60, 0.1) < above(12.5, 60, 0.1) < above(12, 60, 0.1)
