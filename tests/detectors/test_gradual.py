"""Slow drift: how often chance alone alarms, and what is found."""

import math

import numpy as np
import pytest

from detectors.gradual import evidence, persistence


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
    found = evidence(np.array([[0.0], [0.0], *[[9.0]] * 4]))
    assert found.p_value[0, 0] == 1.0
    assert found.p_value[-1, 0] < 1e-5


@pytest.mark.parametrize("size", [5.0, 16.0, -37.0])
def test_a_broken_day_is_no_slow_drift(size: float) -> None:
    """Neither on that day nor in the five weeks after it, but for 5 % of the streams."""
    scores = np.random.default_rng(46).normal(size=(56, 500))
    scores[20] = size
    found = evidence(scores / persistence(scores)).p_value.min(axis=0) <= 0.003
    assert found.mean() < 0.05


def following(rho: float, days: int, streams: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Days that resemble the one before: AR(1) of variance 1."""
    noise = np.random.default_rng(seed).normal(size=(days, streams)) * math.sqrt(1 - rho**2)
    noise[0] /= math.sqrt(1 - rho**2)
    for day in range(1, days):
        noise[day] += rho * noise[day - 1]
    return noise


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.7])
def test_unusual_days_that_come_in_rows_alarm_no_more_than_the_threshold_says(rho: float) -> None:
    """20,000 last days of 56 each; evidence of 100 may come up on 200 of them. Without it up to 6,600 do."""
    scores = following(rho, 56, 20_000, 44)
    plain = int((evidence(scores).log_e[-1] >= math.log(100)).sum())
    allowed = int((evidence(scores / persistence(scores)).log_e[-1] >= math.log(100)).sum())
    assert 0 < allowed <= 200 + 3 * math.sqrt(200)
    assert plain > 2 * allowed or rho == 0


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_persistence_is_that_of_the_noise_and_not_of_the_drift(rho: float) -> None:
    scores = following(rho, 56, 2_000, 45)
    wanted = math.sqrt((1 + rho) / (1 - rho))
    for drift in (0.0, 2.0):
        found = persistence(scores + np.linspace(0, drift, 56)[:, None])
        assert np.median(found) == pytest.approx(wanted, rel=0.12), drift


def test_a_single_day_is_not_alike_to_any() -> None:
    assert persistence(np.array([[1.0], [np.nan]])).tolist() == [1.0]
