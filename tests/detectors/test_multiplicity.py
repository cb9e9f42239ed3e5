"""Adjusted p-values and the alarm budget."""

from datetime import timedelta

import numpy as np
import pytest
import scipy.stats as st

from detectors.multiplicity import cauchy_p, holm, window_alpha


def test_holm_of_the_published_example() -> None:
    """tea-tasting's documentation, rounded inputs."""
    assert holm([0.118, 0.0211, 0.0213, 0.00218]) == pytest.approx([0.118, 0.0633, 0.0633, 0.00872], rel=1e-9)


def test_holm_of_nothing_and_of_one() -> None:
    assert holm([]).tolist() == []
    assert holm([0.03]).tolist() == [0.03]


def test_holm_rejects_what_its_step_down_definition_rejects() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = rng.random(rng.integers(1, 12)) ** 3
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (len(p) - step):
                break
            rejected.add(int(i))
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


def test_alphas_of_a_week_add_up_to_the_share_of_the_budget() -> None:
    for hours in (1, 6, 24):
        alpha = window_alpha(2.0, timedelta(hours=hours), sharers=3)
        assert alpha * (7 * 24 / hours) * 3 == pytest.approx(2.0)


def test_alpha_stays_below_one_half() -> None:
    assert window_alpha(1_000.0, timedelta(hours=1), sharers=1) < 0.5


@pytest.mark.parametrize(("budget", "hours", "sharers"), [(-1.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0)])
def test_a_budget_that_makes_no_sense_is_refused(budget: float, hours: int, sharers: int) -> None:
    with pytest.raises(ValueError, match="budget"):
        window_alpha(budget, timedelta(hours=hours), sharers)


def test_one_p_value_stays_what_it_is() -> None:
    for p in (1e-300, 1e-20, 1e-3, 0.3, 0.9):
        assert cauchy_p([p]) == pytest.approx(p, rel=1e-9)
        assert cauchy_p([p] * 5) == pytest.approx(p, rel=1e-9)


def test_one_small_p_value_counts_times_their_number_however_small_it_is() -> None:
    for p in (1e-5, 1e-14, 1e-16, 1e-290):
        assert cauchy_p([p, 0.4, 0.5, 0.6]) == pytest.approx(4 * p, rel=1e-4)
    assert cauchy_p([0.0, 0.5]) == pytest.approx(0.0, abs=1e-320)


def test_a_p_value_of_one_does_not_outweigh_a_small_one() -> None:
    assert cauchy_p([1e-4, 1.0, 1.0]) == pytest.approx(3e-4, rel=0.1)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7, 1.0])
def test_the_tail_is_right_whatever_the_dependence(correlation: float) -> None:
    """Two-sided p-values of correlated normal scores, at the level that one feature of 25 has."""
    rng = np.random.default_rng(2)
    common, own = rng.normal(size=(100_000, 1)), rng.normal(size=(100_000, 3))
    each = 2 * st.norm.sf(np.abs(correlation**0.5 * common + (1 - correlation) ** 0.5 * own))
    small = each[each.min(axis=1) <= 0.002]  # no other can reach it
    found = sum(cauchy_p(p) <= 0.002 for p in small.tolist())
    assert st.binom.ppf(0.001, 100_000, 0.0017) <= found <= st.binom.ppf(0.999, 100_000, 0.0023)
