"""Adjusted p-values and the alarm budget."""

from datetime import timedelta

import numpy as np
import pytest

from detectors.multiplicity import holm, window_alpha


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
