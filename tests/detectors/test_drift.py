"""What a comparison of one feature says, and the findings made of it."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from detectors.drift import Comparison, compare_feature, drift_findings
from detectors.finding import Contribution, Status, Subject, Window
from detectors.layout import FeatureCells, Kind, Layout

Counts = np.ndarray[Any, np.dtype[np.int64]]

WINDOW = Window("production", "fraud", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
BINS = FeatureCells("x", Kind.NUMERIC, edges=tuple(np.linspace(-3.2, 3.2, 33)))
COLOURS = FeatureCells("colour", Kind.CATEGORICAL, levels=("red", "green", "blue"))
FEATURES = (
    BINS,
    COLOURS,
    FeatureCells("flag", Kind.NUMERIC, points=(0.0, 1.0)),
    FeatureCells("rare", Kind.NUMERIC, points=(-1e9, 0.0, 1e-9, 7.0, 1.7e308)),
    FeatureCells("score", Kind.SCORE),
)


def shares(mean: float = 0.0, sd: float = 1.0) -> list[float]:
    edges = (np.linspace(-3.2, 3.2, 33) - mean) / sd
    return [float(x) for x in np.diff([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in edges])]


def rows(bins: list[float], total: int, below: int = 0, above: int = 0, missing: int = 0, wrong: int = 0) -> Counts:
    inner = np.round(np.array(bins) / sum(bins) * (total - below - above - missing - wrong))
    return np.array([below, *inner, above, missing, 0, wrong], dtype=np.int64)


def colours(*counts: int) -> Counts:
    return np.array([*counts, *[0] * (7 - len(counts))], dtype=np.int64)


@pytest.mark.parametrize(
    ("current", "component"),
    [
        (rows(shares(), 2_000, missing=100), "missing"),
        (rows(shares(), 2_000, wrong=100), "unusable"),
        (rows(shares(), 2_000, above=100), "unseen"),
        (rows(shares(sd=1.4), 2_000), "scale"),
        (rows(shares(mean=0.3), 2_000), "location"),
        (rows([1.3, 0.7] * 16, 2_000), "shape"),
    ],
)
def test_the_component_names_the_change_that_was_made(current: Counts, component: str) -> None:
    baseline = rows([1.0] * 32 if component == "shape" else shares(), 10_000)
    found = compare_feature(BINS, baseline, current)
    assert found.component == component
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.severity > 1


def test_a_level_and_a_new_level_are_named() -> None:
    baseline = colours(5_000, 4_000, 1_000)
    more_blue = compare_feature(COLOURS, baseline, colours(500, 300, 200))
    assert (more_blue.component, more_blue.contributions[0]) == ("level", Contribution("blue", 0.1, 0.2))
    purple = compare_feature(COLOURS, baseline, colours(480, 380, 95, 0, 45))
    assert (purple.component, purple.contributions[0]) == ("unseen", Contribution("new_level", 0.0, 0.045))


def test_a_trifle_does_not_name_a_large_change() -> None:
    """Half a percent more missing values is beyond doubt in a million rows, and still not what happened."""
    baseline = rows(shares(), 1_000_000, missing=10_000)
    found = compare_feature(BINS, baseline, rows(shares(mean=0.5), 1_000_000, missing=15_000))
    assert found.component == "location"


def test_severity_is_the_lower_bound_of_the_effect_over_its_tolerance() -> None:
    """10 % against 20 % of 1,000 rows: 0.1 less 1.645 of its standard errors, in units of one percentage point."""
    found = compare_feature(COLOURS, colours(900, 100), colours(800, 200))
    standard_error = math.sqrt(0.15 * 0.85 * (2 / 1_000) * (2_000 / 1_999))
    assert found.severity == pytest.approx((0.1 - 1.645 * standard_error) / 0.01, rel=0.02)


def test_a_sure_but_tiny_change_is_not_severe() -> None:
    found = compare_feature(COLOURS, colours(500_000, 500_000), colours(503_000, 497_000))
    assert found.p_value is not None
    assert found.p_value < 1e-4
    assert found.severity < 1


def test_worse_is_more_severe() -> None:
    severities = [
        compare_feature(BINS, rows(shares(), 10_000), rows(shares(mean=mean), 1_000)).severity
        for mean in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
    ]
    assert severities == sorted(severities)
    assert severities[0] == 0.0


@pytest.mark.parametrize("cells", [FeatureCells("k", Kind.NUMERIC, points=(4.0,)), COLOURS])
def test_an_identical_constant_is_no_drift(cells: FeatureCells) -> None:
    counts = np.zeros(cells.size, np.int64)
    counts[1] = 500
    found = compare_feature(cells, 4 * counts, counts)
    assert (found.status, found.p_value, found.value, found.severity) == (Status.MEASURED, 1.0, 0.0, 0.0)
    assert (found.component, found.contributions) == ("", ())


@pytest.mark.parametrize(("baseline", "current"), [(199, 1_000), (1_000, 199), (0, 1_000), (1_000, 0), (0, 0)])
def test_too_few_rows_are_not_judged(baseline: int, current: int) -> None:
    found = compare_feature(COLOURS, colours(baseline), colours(0, current), 200)
    assert found.status is Status.NOT_ENOUGH_DATA
    assert found.p_value is None
    assert (found.n, found.n_baseline) == (current, baseline)
    assert f"{current} rows against {baseline}" in found.message
    assert "200" in found.message
    assert found.value == (1.0 if baseline and current else None)


def test_all_rows_of_a_feature_count_towards_its_n() -> None:
    found = compare_feature(BINS, rows(shares(), 1_000), rows(shares(), 400, missing=300, above=10), 400)
    assert found.status is Status.MEASURED
    assert found.n == pytest.approx(400, abs=5)


def test_effects_of_an_unordered_feature_leave_out_those_that_need_an_order() -> None:
    found = compare_feature(COLOURS, colours(500, 500), colours(480, 500, 0, 0, 0, 20))
    assert set(found.effects) == {"psi", "jensen_shannon", "missing_difference"}
    assert found.effects["missing_difference"] == pytest.approx(0.02)
    assert found.value == found.effects["jensen_shannon"]


def test_effects_of_a_shifted_normal_are_those_of_theory() -> None:
    """Shift d: AUC = Phi(d / sqrt 2), Wasserstein distance = d standard deviations; the cut tails cost 1 %."""
    found = compare_feature(BINS, rows(shares(), 1_000_000), rows(shares(mean=0.2), 1_000_000))
    assert found.effects["location_auc"] == pytest.approx(0.5 * math.erf(0.2 / 2), rel=0.01)
    assert found.effects["wasserstein_sd"] == pytest.approx(0.2, rel=0.02)


def features_with_counts(elements: some.SearchStrategy[Any], dtype: type) -> some.SearchStrategy[Any]:
    return some.sampled_from(FEATURES).flatmap(
        lambda f: some.tuples(
            some.just(f), *[arrays.arrays(dtype, f.size, elements=elements, fill=some.just(0)) for _ in range(2)]
        )
    )


fractional = some.floats(0, 900, allow_subnormal=False)  # no weight makes a count that small


def numbers_of(found: Comparison) -> list[float]:
    shown = [x for c in found.contributions for x in (c.share, c.baseline_share)]
    optional = [x for x in (found.value, found.p_value) if x is not None]
    return [found.severity, *found.effects.values(), *shown, *optional]


@given(features_with_counts(some.integers(0, 5_000), np.int64) | features_with_counts(fractional, np.float64))
def test_any_counts_give_finite_numbers(case: tuple[FeatureCells, Counts, Counts]) -> None:
    found = compare_feature(*case, minimum_rows=1)
    assert all(math.isfinite(x) for x in numbers_of(found))
    assert found.p_value is None or 0.0 <= found.p_value <= 1.0
    assert found.value is None or 0.0 <= found.value <= 1.0
    assert (found.p_value is None) == (found.status is Status.NOT_ENOUGH_DATA)


@given(features_with_counts(some.integers(0, 300), np.int64))
def test_swapping_the_sides_keeps_the_p_value_and_mirrors_the_effects(
    case: tuple[FeatureCells, Counts, Counts],
) -> None:
    cells, a, b = case
    a[list(cells.unseen)] = b[list(cells.unseen)] = 0
    there, back = compare_feature(cells, a, b, 1), compare_feature(cells, b, a, 1)
    assert back.p_value == (None if there.p_value is None else pytest.approx(there.p_value, rel=1e-6, abs=1e-12))
    for mirrored in ("location_auc", "missing_difference"):
        if mirrored in there.effects:
            assert back.effects[mirrored] == pytest.approx(-there.effects[mirrored], abs=1e-9)


def test_weights_that_are_not_whole_numbers_are_compared_too() -> None:
    baseline = rows(shares(), 10_000).astype(np.float64) * 1.5
    current = rows(shares(mean=0.3), 1_000, missing=9).astype(np.float64) * 1.25
    found = compare_feature(BINS, baseline, current)
    whole = compare_feature(BINS, np.rint(baseline).astype(np.int64), rows(shares(mean=0.3), 1_250, missing=11))
    assert found.p_value is not None
    assert whole.p_value is not None
    assert math.log(found.p_value) == pytest.approx(math.log(whole.p_value), rel=0.02)


def test_findings_name_each_feature_of_the_layout() -> None:
    layout = Layout((BINS, COLOURS))
    baseline = np.concatenate([rows(shares(), 1_000), colours(500, 500)])
    current = np.concatenate([rows(shares(mean=0.5), 1_000), colours(10, 10)])
    subject = Subject(version="2", server="a")
    found = drift_findings(WINDOW, subject, "server_outlier", "fleet", layout, baseline, current, 200)
    assert [f.subject for f in found] == [Subject("2", "a", "", "x"), Subject("2", "a", "", "colour")]
    assert {(f.window, f.detector, f.baseline) for f in found} == {(WINDOW, "server_outlier", "fleet")}
    assert [f.status for f in found] == [Status.MEASURED, Status.NOT_ENOUGH_DATA]
    alone = compare_feature(BINS, rows(shares(), 1_000), rows(shares(mean=0.5), 1_000))
    assert (found[0].p_value, found[0].component, found[0].severity) == (alone.p_value, "location", alone.severity)


def test_findings_of_named_features_only() -> None:
    layout = Layout((BINS, COLOURS))
    counts = np.concatenate([rows(shares(), 1_000), colours(500, 500)])
    found = drift_findings(WINDOW, Subject(), "drift", "reference:a", layout, counts, counts, 200, features={"colour"})
    assert [f.subject.feature for f in found] == ["colour"]
