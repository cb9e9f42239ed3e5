"""The scores of one feature: parity with scipy.stats, and the traps of judging counts."""

from typing import Any

import numpy as np
import pytest
import scipy.stats as st

from detectors.layout import FeatureCells, Kind
from detectors.scores import Case, Score, feature_scores, scores_of

Floats = np.ndarray[Any, np.dtype[np.float64]]

BINS = FeatureCells("x", Kind.NUMERIC, edges=tuple(np.linspace(0, 1, 33)))
LEVELS = FeatureCells("c", Kind.CATEGORICAL, levels=tuple("abcdefgh"))


def numeric(
    bins: Floats | list[float], below: float = 0, above: float = 0, states: tuple[float, ...] = (0, 0, 0)
) -> Floats:
    return np.array([below, *bins, above, *states], dtype=float)


def points(*values: float) -> FeatureCells:
    return FeatureCells("k", Kind.NUMERIC, points=values)


def at_points(*rows: float, between: float = 0) -> Floats:
    return np.array([0, *rows, 0, between, 0, 0, 0], dtype=float)


def levels(*rows: float, other: float = 0, new: float = 0, missing: float = 0, wrong: float = 0) -> Floats:
    return np.array([*rows, *[0] * (8 - len(rows)), other, new, missing, wrong], dtype=float)


def by_component(cells: FeatureCells, baseline: Floats, current: Floats) -> dict[str, Score]:
    return {s.component: s for s in feature_scores(cells, baseline, current)}


def exact_p(hits: int, pooled: int, n: int, m: int) -> float:
    """All less likely numbers of hits among n rows, and half of this one."""
    likely = st.hypergeom(n + m, pooled, n).pmf(np.arange(min(pooled, n) + 1))
    return float(likely[likely < likely[hits] * (1 - 1e-9)].sum() + likely[hits] / 2)


@pytest.fixture
def draws() -> tuple[Floats, Floats]:
    rng = np.random.default_rng(11)
    return rng.multinomial(2_000, np.ones(32) / 32).astype(float), rng.multinomial(2_000, np.ones(32) / 32).astype(
        float
    )


def test_location_is_the_mann_whitney_test_with_ties(draws: tuple[Floats, Floats]) -> None:
    baseline, current = draws
    rows = [np.repeat(np.arange(32), side.astype(int)) for side in (current, baseline)]
    expected = st.mannwhitneyu(*rows, method="asymptotic", use_continuity=False)
    location = by_component(BINS, numeric(baseline), numeric(current))["location"]
    assert location.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert location.effect == pytest.approx(expected.statistic / 2_000**2 - 0.5, abs=1e-12)


def test_scale_is_the_permutation_test_of_squared_ranks_beside_the_ranks() -> None:
    rng = np.random.default_rng(12)
    baseline, current = np.array([30, 60, 200, 150, 60.0]), np.array([21, 16, 70, 58, 35.0])
    found = by_component(points(0, 1, 2, 3, 4), at_points(*baseline), at_points(*current))["scale"]
    pooled = (baseline + current).astype(int)
    ranks = np.cumsum(pooled) - pooled / 2
    weighted = np.sqrt(pooled)[:, None] * np.column_stack([np.ones(5), ranks, ranks**2])
    score = np.linalg.qr(weighted)[0][:, 2] / np.sqrt(pooled)
    dealt = rng.multivariate_hypergeometric(pooled, int(current.sum()), size=200_000, method="marginals") @ score
    upper = (dealt >= current @ score).mean()
    assert found.p_value == pytest.approx(2 * min(upper, 1 - upper), rel=0.1)
    assert found.p_value < 0.05


def test_shape_is_what_homogeneity_has_beside_location_and_scale(draws: tuple[Floats, Floats]) -> None:
    baseline, current = draws
    table = st.chi2_contingency(np.vstack([current, baseline]), correction=False)
    found = by_component(BINS, numeric(baseline), numeric(current))
    rest = table.statistic * 3_999 / 4_000 - found["location"].z ** 2 - found["scale"].z ** 2
    assert found["shape"].p_value == pytest.approx(st.chi2.sf(rest, 29))


def test_shape_of_levels_is_the_chi_square_test_of_homogeneity() -> None:
    baseline, current = levels(500, 380, 60, 60), levels(40, 42, 12, 6)
    table = st.chi2_contingency(np.vstack([current[:4], baseline[:4]]), correction=False)
    expected = st.chi2.sf(table.statistic * 1_099 / 1_100, 3)
    assert by_component(LEVELS, baseline, current)["shape"].p_value == pytest.approx(expected)


def test_shape_does_not_alarm_when_two_windows_agree_too_well() -> None:
    same = np.full(32, 100.0)
    assert by_component(BINS, numeric(same), numeric(same))["shape"].p_value == pytest.approx(1.0)


def test_small_cells_are_pooled_until_both_sides_expect_five_rows() -> None:
    """Current: 100 of 1,100 rows. Level c needs 55 pooled rows; d to h have 60 together and become one cell."""
    baseline = levels(500, 386, 60, 18, 18, 9, 5, 4)
    current = levels(40, 42, 12, 2, 2, 1, 1, 0)
    found = by_component(LEVELS, baseline, current)["shape"]
    table = st.chi2_contingency([[40, 42, 12, 6], [500, 386, 60, 54]], correction=False)
    assert found.p_value == pytest.approx(st.chi2.sf(table.statistic * 1_099 / 1_100, 3))


def test_a_pool_that_stays_small_joins_the_least_cell() -> None:
    baseline, current = levels(500, 400, 90, 10), levels(45, 40, 12, 3)
    found = by_component(LEVELS, baseline, current)["shape"]
    table = st.chi2_contingency([[45, 40, 15], [500, 400, 100]], correction=False)
    assert found.p_value == pytest.approx(st.chi2.sf(table.statistic * 1_099 / 1_100, 2))


@pytest.mark.parametrize(("component", "state"), [("missing", 0), ("unusable", 1), ("unusable", 2)])
def test_rare_states_have_exact_tails(component: str, state: int, draws: tuple[Floats, Floats]) -> None:
    baseline, current = numeric(draws[0]), numeric(draws[1])
    baseline[-3 + state], current[-3 + state] = 1, 8
    expected = exact_p(8, 9, 2_008, 2_001)
    score = by_component(BINS, baseline, current)[component]
    assert score.p_value == pytest.approx(expected, rel=1e-6)
    assert score.effect == pytest.approx(8 / 2_008 - 1 / 2_001)


def test_the_rarest_levels_have_exact_tails_of_which_there_are_several() -> None:
    found = by_component(LEVELS, levels(5_000, 5_000, 0), levels(250, 247, 3))["level"]
    assert found.p_value == pytest.approx(1 - (1 - exact_p(3, 3, 500, 10_000)) ** 3, rel=1e-6)
    assert found.effect == pytest.approx(3 / 500)


def test_two_levels_are_one_question() -> None:
    found = feature_scores(LEVELS, levels(500, 500), levels(100, 140))
    assert [s.component for s in found] == ["level"]
    assert found[0].p_value == pytest.approx(exact_p(140, 640, 240, 1_000), rel=1e-6)


def test_missing_rows_leave_the_ordered_scores_alone(draws: tuple[Floats, Floats]) -> None:
    baseline, current = draws
    plain = by_component(BINS, numeric(baseline), numeric(current))
    gaps = by_component(BINS, numeric(baseline), numeric(current, states=(3_000, 20, 30)))
    for component in ("location", "scale", "shape"):
        assert gaps[component] == plain[component]
    assert gaps["missing"].p_value < 1e-9


def test_a_new_level_is_judged_among_the_usable_rows() -> None:
    few_missing = by_component(LEVELS, levels(500, 500), levels(100, 100, new=5, missing=5))["unseen"]
    many_missing = by_component(LEVELS, levels(500, 500), levels(100, 100, new=5, missing=5_000))["unseen"]
    assert few_missing == many_missing


def test_two_values_have_a_location_but_no_scale_and_no_shape() -> None:
    found = feature_scores(points(0, 1), at_points(700, 301), at_points(330, 170))
    assert [s.component for s in found] == ["location"]
    assert found[0].p_value == pytest.approx(exact_p(170, 471, 500, 1_001), rel=1e-6)
    assert found[0].effect == pytest.approx((170 / 500 - 301 / 1_001) / 2)


@pytest.mark.parametrize("rows", [(700, 301), (1, 100_000), (33_333, 66_667), (123_457, 7)])
def test_a_third_value_without_weight_makes_no_scale_out_of_rounding(rows: tuple[float, float]) -> None:
    current = np.round(np.array(rows) / 3)
    found = by_component(points(0, 1, 2), at_points(*rows, 1), at_points(*current, 0))
    assert "scale" not in found


def test_a_feature_nearly_always_at_one_value_is_judged_exactly_by_how_often_it_is_not() -> None:
    baseline, current = at_points(9_950, 20, 20, 10), at_points(490, 3, 5, 2)
    found = by_component(points(0, 1, 2, 3), baseline, current)
    assert found["location"].p_value == pytest.approx(exact_p(10, 60, 500, 10_000), rel=1e-6)
    assert "scale" not in found
    assert "shape" not in found


def test_the_same_constant_answers_no_question() -> None:
    assert feature_scores(points(4), at_points(1_000), at_points(300)) == []
    assert feature_scores(LEVELS, levels(1_000), levels(300)) == []
    assert feature_scores(LEVELS, levels(missing=1_000), levels(missing=300)) == []


def test_a_constant_that_becomes_another_is_unseen() -> None:
    above = np.array([0, 0, 300, 0, 0, 0, 0], dtype=float)
    found = by_component(points(4), at_points(1_000), above)
    assert found["unseen"].p_value < 1e-100
    assert found["unseen"].effect == pytest.approx(1.0, abs=0.01)


def test_values_between_known_ones_do_not_need_an_order() -> None:
    found = by_component(points(0, 1), at_points(500, 500), at_points(0, 0, between=300))
    assert set(found) == {"unseen", "shape"}
    assert found["unseen"].p_value < 1e-100


def test_values_of_a_weighted_baseline_excuse_as_many_rows_as_they_weigh() -> None:
    cells = points(*range(20))
    whole = np.array([0, *[99] * 10, *[1] * 10, 0, 0, 0, 0, 0], dtype=float)
    weighted = np.array([0, *[99.2] * 10, *[0.98] * 10, 0, 0, 0, 0, 0], dtype=float)
    current = np.array([0, *[49] * 10, *[1] * 5, *[0] * 5, 0, 12, 0, 0, 0], dtype=float)
    expected = by_component(cells, whole, current)["unseen"].p_value
    assert by_component(cells, weighted, current)["unseen"].p_value == pytest.approx(expected, rel=0.05)


def test_rows_beyond_the_range_of_the_baseline_alarm_at_the_nominal_rate() -> None:
    """Any row outside as an alarm would fire in most windows; the p-value of how many there are must not."""
    rng = np.random.default_rng(13)
    repetitions, n, m = 4_000, 2_000, 1_000
    u = rng.random((repetitions, 2))
    lowest = 1 - u[:, 0] ** (1 / m)
    highest = lowest + (1 - lowest) * u[:, 1] ** (1 / (m - 1))
    outside = rng.binomial(n, lowest + 1 - highest)
    bins = np.full(32, m / 32)
    cases = [Case(BINS, numeric(bins), numeric(np.full(32, (n - x) / 32), above=x)) for x in outside.tolist()]
    p_values = [s.p_value for found in scores_of(cases) for s in found if s.component == "unseen"]
    any_outside, small = len(p_values), sum(p <= 0.01 for p in p_values)
    assert any_outside > 0.8 * repetitions
    assert st.binom.ppf(0.001, repetitions, 0.008) <= small <= st.binom.ppf(0.999, repetitions, 0.01)


def test_fewer_unseen_rows_than_the_baseline_excuses_are_no_change() -> None:
    """Three values seen once in 1,000 rows, and only four new rows in 50,000: nothing to alarm about."""
    baseline = np.array([0, 997, 1, 1, 1, 0, 0, 0, 0, 0], dtype=float)
    current = np.array([0, 49_846, 50, 50, 50, 4, 0, 0, 0, 0], dtype=float)
    assert by_component(points(0, 1, 2, 3), baseline, current)["unseen"].p_value > 0.2


def test_values_that_the_baseline_has_once_excuse_a_few_new_ones() -> None:
    """Ten values seen once in 1,000 rows: about one row in a hundred is expected to be new."""
    cells = points(*range(20))
    baseline = np.array([0, *[99] * 10, *[1] * 10, 0, 0, 0, 0, 0], dtype=float)
    current = np.array([0, *[49] * 10, *[1] * 5, *[0] * 5, 0, 5, 0, 0, 0], dtype=float)
    assert by_component(cells, baseline, current)["unseen"].p_value > 0.2
    hardly = np.array([0, *[45] * 10, *[0] * 10, 0, 50, 0, 0, 0], dtype=float)
    assert by_component(cells, baseline, hardly)["unseen"].p_value < 1e-6


def test_every_score_has_the_normal_score_of_its_p_value_with_the_sign_of_the_change() -> None:
    baseline = numeric([200.0] * 32, below=40, states=(60, 20, 0))
    for current in (numeric([*[100.0] * 16, *[120.0] * 16]), numeric([90.0] * 32, above=30, states=(90, 40, 2))):
        for score in feature_scores(BINS, baseline, current):
            expected = st.norm.isf(score.p_value) if score.component == "shape" else st.norm.isf(score.p_value / 2)
            assert abs(score.z) == pytest.approx(abs(expected), rel=1e-6), score
            assert score.component in ("shape", "scale") or np.sign(score.z) == np.sign(score.effect)
    shrunk = by_component(LEVELS, levels(500, 400, 100), levels(200, 200, 10))["level"]
    assert shrunk.z == pytest.approx(-st.norm.isf(shrunk.p_value / 2))


def test_shape_scores_are_negative_where_the_sides_agree_too_well() -> None:
    same = np.full(32, 100.0)
    assert by_component(BINS, numeric(same), numeric(same))["shape"].z < -5


def test_normal_scores_stay_finite_where_nothing_is_left_in_common() -> None:
    for cells, baseline, current in (
        (BINS, numeric([1_000_000.0, *[0] * 31]), numeric([*[0] * 31, 1_000_000.0], states=(500_000, 9, 9))),
        (BINS, numeric([10_000.0] * 32), numeric([0] * 32, above=1_000)),
        (LEVELS, levels(100_000, 100_000), levels(0, 0, 100_000, new=100_000)),
    ):
        found = feature_scores(cells, baseline, current)
        assert found
        assert all(np.isfinite(s.z) for s in found)
        assert max(abs(s.z) for s in found) > 38


def test_features_judged_together_have_the_scores_of_each_alone() -> None:
    rng = np.random.default_rng(15)
    many = points(*range(20))
    score = FeatureCells("s", Kind.SCORE)
    cases = [
        Case(
            BINS,
            numeric(rng.poisson(30, 32).astype(float), states=(9, 0, 0)),
            numeric(rng.poisson(9, 32).astype(float)),
        ),
        Case(LEVELS, levels(500, 386, 60, 18, missing=5), levels(60, 30, 1, 7)),
        Case(LEVELS, levels(missing=100), levels(missing=70)),
        Case(many, rng.poisson(3, many.size).astype(float), rng.poisson(2, many.size).astype(float)),
        Case(score, rng.poisson(0.5, score.size).astype(float), rng.poisson(40, score.size).astype(float)),
        Case(points(0, 1), at_points(700, 300), at_points(330, 170)),
    ]
    together = scores_of(cases)
    for case, found in zip(cases, together, strict=True):
        alone = feature_scores(*case)
        assert [s.component for s in found] == [s.component for s in alone]
        for a, b in zip(found, alone, strict=True):
            assert (a.p_value, a.z, a.effect) == pytest.approx((b.p_value, b.z, b.effect), rel=1e-9, abs=1e-12)
    assert scores_of([]) == []
