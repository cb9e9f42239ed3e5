"""Tail probabilities against scipy.stats."""

import numpy as np
import pytest
import scipy.stats as st

from detectors.tails import (
    LARGEST_EXACT_VARIANCE,
    TINY,
    beyond_log_p,
    chi_square_log_p,
    hypergeometric_log_p,
    hypergeometric_p,
    one_sided_z,
    sum_z,
    two_sided_log_p,
    two_sided_z,
)


def exact_mid_p(x: int, k: int, n: int, m: int) -> float:
    """By the definition: everything less likely than x, and half of what is as likely."""
    every = np.arange(max(0, k - m), min(k, n) + 1)
    likely = st.hypergeom(n + m, k, n).pmf(every)
    seen = likely[every == x][0]
    as_likely = np.isclose(likely, seen, rtol=1e-6, atol=0)
    return float(likely[(likely < seen) & ~as_likely].sum() + likely[as_likely].sum() / 2)


def variance(k: int, n: int, m: int) -> float:
    total = n + m
    return n * m * k * (total - k) / total**2 / (total - 1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 3), (200, 300), (500, 10_000), (10_000, 500), (2_000, 1_000)])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.07, 0.3, 0.9, 0.9999])
def test_every_count_from_far_below_to_far_above_has_the_exact_tail(n: int, m: int, share: float) -> None:
    k = round(share * (n + m))
    x = np.unique(np.linspace(max(0, k - m), min(k, n), 25).round())
    assert variance(k, n, m) < LARGEST_EXACT_VARIANCE
    expected = np.array([exact_mid_p(int(i), k, n, m) if len(x) > 1 else 1.0 for i in x])
    found = hypergeometric_p(x, np.full(len(x), float(k)), n, m)
    shown = expected > 1e-18
    np.testing.assert_allclose(found[shown], expected[shown], rtol=1e-7)
    assert (found[~shown] <= 2e-18).all()


def test_large_counts_use_a_skewed_tail_that_is_close_to_the_exact_one() -> None:
    for n, m, k, tolerance in (
        (50_000, 100_000, 60_000, 0.01),
        (2_000, 2_000, 800, 0.02),
        (50_000, 1_000, 8_000, 0.15),
    ):
        sd = variance(k, n, m) ** 0.5
        x = np.round(n * k / (n + m) + sd * np.array([-4.0, -2.0, 1.0, 3.0]))
        expected = [exact_mid_p(int(i), k, n, m) for i in x]
        assert sd**2 > LARGEST_EXACT_VARIANCE * 0.8
        np.testing.assert_allclose(hypergeometric_p(x, np.full(4, float(k)), n, m), expected, rtol=tolerance)


def test_swapping_the_sides_changes_nothing() -> None:
    hits, others = np.array([0.0, 3.0, 40.0, 7.0]), np.array([4.0, 0.0, 60.0, 900.0])
    there = hypergeometric_p(hits, hits + others, 300, 4_000)
    back = hypergeometric_p(others, hits + others, 4_000, 300)
    np.testing.assert_allclose(there, back, rtol=1e-9)


def test_weighted_counts_never_round_into_the_impossible() -> None:
    """All 10.5 baseline rows and half a current row are hits, so nothing is unusual; yet 11 hits exceed 10 rows."""
    assert hypergeometric_p(np.array([0.5]), np.array([11.0]), 0.5, 10.5)[0] == 1.0


def test_expected_counts_that_are_not_whole_give_the_p_value_of_the_nearest_whole_ones() -> None:
    """An expected 12.4 of 1,234.4 baseline rows, as weighting hours by their volume makes them."""
    found = hypergeometric_p(np.array([30.0]), np.array([42.4]), 1_000.0, 1_234.4)
    assert found[0] == pytest.approx(exact_mid_p(30, 42, 1_000, 1_234), rel=1e-7)


def test_p_values_of_weighted_counts_lie_between_those_of_the_whole_counts_around_them() -> None:
    baseline_hits = np.arange(2.0, 12.0, 0.1)
    found = hypergeometric_p(np.full(100, 15.0), 15.0 + baseline_hits, 1_000.0, 2_000.3)
    assert (np.diff(found) >= -1e-15).all()
    whole = hypergeometric_p(np.full(2, 15.0), np.array([17.0, 27.0]), 1_000.0, 2_000.0)
    assert whole[0] <= found.min()
    assert found.max() <= whole[1]


def test_no_weights_are_too_odd_for_a_p_value() -> None:
    rng = np.random.default_rng(14)
    n, m = rng.exponential(50, 2_000), rng.exponential(50, 2_000)
    n[:200] = np.rint(n[:200]) + 0.5
    m[100:300] = np.rint(m[100:300]) + 0.5
    parts = rng.choice([0.0, 0.01, 0.5, 0.99, 1.0], (2, 2_000))
    hits, baseline_hits = n * parts[0], m * parts[1]
    found = hypergeometric_p(hits, hits + baseline_hits, n, m)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(("n", "m"), [(500, 1_000), (50_000, 1_000), (300, 10_000)])
@pytest.mark.parametrize("once", [1, 7])
def test_rows_beyond_what_others_reached_have_the_negative_hypergeometric_tail(n: int, m: int, once: int) -> None:
    """So many current rows before the first ``once + 1`` of the baseline's, when both are dealt at random."""
    hits = np.unique(np.linspace(0, 20 * (once + 1) * n / m, 30).round())
    law = st.nhypergeom(n + m, n, once + 1)
    expected = (law.sf(hits - 1) + law.sf(hits)) / 2
    found = np.exp(beyond_log_p(hits, np.full(len(hits), float(once)), n, m))
    np.testing.assert_allclose(found, np.minimum(1.0, expected), rtol=1e-6, atol=1e-9)


def test_all_rows_beyond_what_others_reached_are_a_finite_surprise() -> None:
    found = beyond_log_p(np.array([1e6, 300.0, 0.4]), np.array([1.0, 5.0, 3.0]), np.array([1e6, 300.0, 0.4]), 2.5)
    assert np.isfinite(found).all()
    assert found[0] < -8


def one_sum_z(total: float, third_moment: float, n: float, m: float) -> float:
    return float(sum_z(*(np.array([x], dtype=float) for x in (total, third_moment, n, m)))[0])


def one_chi_square_log_p(statistic: float, degrees: int) -> float:
    return float(chi_square_log_p(np.array([statistic]), np.array([degrees]))[0])


@pytest.mark.parametrize(("n", "m", "k"), [(500, 10_000, 300), (1_000, 200, 60), (300, 300, 100)])
def test_sum_of_a_two_valued_score_has_the_pearson_tail_with_the_moments_of_the_hypergeometric(
    n: int, m: int, k: int
) -> None:
    total = n + m
    share = k / total
    hit, other = np.sqrt((1 - share) / share), -np.sqrt(share / (1 - share))
    third = share * hit**3 + (1 - share) * other**3
    mean, squared, skewness = st.hypergeom.stats(total, k, n, moments="mvs")
    for x in (round(mean - 2.5 * squared**0.5), round(mean + 1), round(mean + 4 * squared**0.5)):
        z = (x - mean) / squared**0.5
        tails = st.pearson3(float(skewness)) if abs(skewness) > 1e-9 else st.norm
        found = one_sum_z(x * hit + (n - x) * other, third, n, m)
        assert np.sign(found) == np.sign(tails.cdf(z) - 0.5)
        assert 2 * st.norm.sf(abs(found)) == pytest.approx(min(1.0, 2 * min(tails.sf(z), tails.cdf(z))), rel=0.06)


def test_a_sum_beyond_the_end_of_the_pearson_distribution_has_a_finite_score() -> None:
    scores = [one_sum_z(total, 4.0, 100, 10_000) for total in (-40.0, -60.0, -100.0, -1_000.0)]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("statistic", "degrees"), [(45.0, 20), (0.5, 3), (1e-3, 31), (1_300.0, 31)])
def test_chi_square_tail(statistic: float, degrees: int) -> None:
    assert one_chi_square_log_p(statistic, degrees) == pytest.approx(st.chi2.logsf(statistic, degrees), rel=1e-9)


def test_chi_square_tail_without_a_difference() -> None:
    assert one_chi_square_log_p(0.0, 3) == 0.0


@pytest.mark.parametrize("degrees", [1, 2, 31, 600])
def test_chi_square_tail_goes_on_where_floats_end(degrees: int) -> None:
    """Neither the logarithm nor its slope jumps there."""
    logs = np.array([one_chi_square_log_p(x, degrees) for x in np.arange(1_000.0, 4_000.0, 10.0)])
    assert logs[0] > np.log(TINY) > logs[-1]
    assert np.abs(np.diff(logs, 2)).max() < 0.03


def test_a_hypergeometric_tail_goes_on_where_floats_end() -> None:
    n, m, k = 400, 2_000, 400
    hits = np.array([390.0, 395.0, 400.0])
    expected = st.hypergeom(n + m, k, n).logpmf(hits) - np.log(2)
    found = hypergeometric_log_p(hits, np.full(3, float(k)), n, m)
    assert (found < -740).all()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_normal_scores_of_p_values_are_finite_and_in_order() -> None:
    logs = np.array([0.0, -1e-20, -1e-9, -0.1, -3.0, -700.0, -800.0, -1e6])
    for score in (one_sided_z, two_sided_z):
        scores = score(logs)
        assert np.isfinite(scores).all()
        assert (np.diff(scores) >= 0).all()
    assert two_sided_z(logs)[0] == 0.0
    np.testing.assert_allclose(one_sided_z(logs)[3:5], st.norm.isf(np.exp(logs[3:5])))
    np.testing.assert_allclose(two_sided_z(logs)[3:5], st.norm.isf(np.exp(logs[3:5]) / 2))


def test_a_two_sided_p_value_and_its_normal_score_are_each_others_inverse() -> None:
    z = np.array([0.001, 1.0, 5.0, 30.0, 50.0, 1_000.0])
    np.testing.assert_allclose(two_sided_z(two_sided_log_p(z)), z, rtol=1e-6)
