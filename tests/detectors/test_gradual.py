"""Slow drift: how often chance alone alarms, and what is found."""

import math

import numpy as np
import pytest

from detectors.gradual import evidence


def test_chance_alarms_less_often_than_the_threshold_says() -> None:
    """60,000 days of standard normal scores; a threshold of 100 days allows 600 alarms."""
    found = evidence(np.random.default_rng(41).normal(size=(600, 100)))
    high = found.log_e >= math.log(100)
    begun = int(high[0].sum() + (high[1:] & ~high[:-1]).sum())
    assert 10 < begun < 600


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_days_that_lean_to_one_side_are_found_before_any_is_remarkable(sign: float) -> None:
    scores = np.random.default_rng(42).normal(size=(60, 200))
    scores[20:] += sign * np.linspace(0.05, 2.0, 40)[:, None]
    found = evidence(scores).log_e >= math.log(400)
    days = np.where(found.any(axis=0), found.argmax(axis=0) - 20, 99)
    assert 10 < np.median(days) < 30
    assert (np.median(np.abs(scores[20:]).max(axis=0))) < 4.5


def test_it_says_since_when() -> None:
    scores = np.random.default_rng(43).normal(size=(60, 200))
    scores[30:] += 1.5
    assert abs(float(np.median(evidence(scores).since[-1])) - 30) <= 2


def test_a_day_that_was_not_judged_changes_nothing() -> None:
    scores = np.array([[1.0], [2.0], [1.5]])
    with_gap = np.array([[1.0], [np.nan], [2.0], [1.5]])
    assert evidence(with_gap).log_e[-1] == pytest.approx(evidence(scores).log_e[-1])


def test_the_p_value_is_never_above_one() -> None:
    found = evidence(np.array([[0.0], [0.0], [9.0]]))
    assert found.p_value[0, 0] == 1.0
    assert found.p_value[-1, 0] < 1e-5
