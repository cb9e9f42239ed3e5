"""Scores held against earlier ones: rates that hold where rows depend on each other, and what a bad past does."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import scipy.stats as st

from detectors.calibration import Past, Usual, calibrate
from detectors.scores import Score

Floats = np.ndarray[Any, np.dtype[np.float64]]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def past_of(z: Floats, exposure: float | Floats = 1_000.0, length: timedelta = DAY, step: timedelta = DAY) -> Past:
    return Past(z, np.full((len(z), 1), 1.0) * exposure, length, step)


def two_sided(columns: int) -> Any:
    return np.zeros(columns, dtype=bool)


def p_values(now: Floats, past: Past, exposure: float = 1_000.0, *, lasting: bool = False) -> Floats:
    return calibrate(now, np.array([exposure]), past, two_sided(len(now)), lasting=lasting).p_value


def tolerated(rate: float, repetitions: int) -> tuple[float, float]:
    low, high = st.binom.interval(0.999, repetitions, rate)
    return low / repetitions, high / repetitions


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize(("windows", "between"), [(10, 0.01), (28, 0.01), (28, 0.1)])
def test_days_that_differ_alarm_at_the_nominal_rate(windows: int, between: float, lasting: bool) -> None:
    """Student's t with the least sure spread: 1 % of undisturbed windows; rows alone would give over a third."""
    rng = np.random.default_rng(51)
    columns = 20_000
    exposure = rng.uniform(500, 1_500, windows + 1)[:, None]
    z = rng.normal(size=(windows + 1, columns)) * np.sqrt(1 + between * exposure)
    z += 0.1 * np.sqrt(exposure) * lasting
    found = p_values(z[-1], past_of(z[:-1], exposure[:-1]), float(exposure[-1, 0]), lasting=lasting)
    rate = float((found <= 0.01).mean())
    assert tolerated(0.005, columns)[0] < rate < tolerated(0.015, columns)[1]
    assert (2 * st.norm.sf(np.abs(z[-1])) <= 0.01).mean() > 0.3


def with_location(rng: np.random.Generator, windows: int, features: int, between: float) -> tuple[Floats, Floats]:
    """Scores of location, scale and shape, feature by feature; location touches the other two by its square."""
    exposure = rng.uniform(3_000, 7_000, windows)[:, None]
    location = rng.normal(size=(windows, features)) * np.sqrt(1 + between * exposure)
    scale = rng.normal(size=location.shape) - 0.4 * location**2 / np.sqrt(exposure)
    chi_square = rng.noncentral_chisquare(30, 0.05 * location**2)
    shape = st.norm.isf(st.chi2.sf(chi_square, 30).clip(1e-300, 1))
    return np.stack([location, scale, shape], axis=2).reshape(windows, -1), exposure


@pytest.mark.parametrize("between", [0.0, 0.0225, 0.09])
def test_what_a_change_of_location_does_to_the_other_scores_is_no_change_of_its_own(between: float) -> None:
    """Days that differ by 0.15 and by 0.3 standard deviations, so that location alone is 12 and 21."""
    rng = np.random.default_rng(61)
    z, exposure = with_location(rng, 57, 6_000, between)
    one_sided = np.tile([False, False, True], 6_000)
    own = np.arange(len(one_sided))
    location = np.where(own % 3, own // 3 * 3, -1)
    past = past_of(z[:-1], exposure[:-1])
    rates = []
    for allowed_for in (location, None):
        found = calibrate(z[-1], exposure[-1], past, one_sided, lasting=False, location=allowed_for)
        rates.append(float((found.p_value.reshape(-1, 3)[:, 1:] <= 0.002).mean()))
    assert rates[0] <= tolerated(0.004, 12_000)[1]
    assert not between or rates[1] > 4 * rates[0]


def test_a_change_of_scale_is_seen_beside_locations_that_wander() -> None:
    rng = np.random.default_rng(62)
    z, exposure = with_location(rng, 57, 2_000, 0.0225)
    z[-1, 1::3] += 8
    one_sided = np.tile([False, False, True], 2_000)
    own = np.arange(len(one_sided))
    location = np.where(own % 3, own // 3 * 3, -1)
    found = calibrate(z[-1], exposure[-1], past_of(z[:-1], exposure[:-1]), one_sided, lasting=False, location=location)
    assert (found.p_value[1::3] < 1e-4).mean() > 0.9


def test_larger_windows_are_expected_to_differ_by_more() -> None:
    """The same difference between days shows ten times as much in windows of ten times as many rows."""
    rng = np.random.default_rng(52)
    columns, between = 20_000, 0.02
    past = past_of(rng.normal(size=(40, columns)) * np.sqrt(1 + between * 200), 200.0)
    now = rng.normal(size=columns) * np.sqrt(1 + between * 2_000)
    found = float((p_values(now, past, 2_000.0) <= 0.01).mean())
    assert 0.004 < found < 0.025


def test_without_enough_past_rows_count_as_independent_and_it_says_so() -> None:
    z = np.array([2.5, -3.0])
    for past in (past_of(np.full((7, 2), 50.0)), past_of(np.full((100, 2), 50.0), length=HOUR, step=HOUR)):
        found = calibrate(z, np.array([1_000.0]), past, two_sided(2), lasting=False)
        assert not found.from_history.any()
        assert found.p_value == pytest.approx(2 * st.norm.sf(np.abs(z)))
        assert found.z == pytest.approx(z)


def test_a_score_that_earlier_windows_did_not_have_rests_on_rows_alone() -> None:
    past = np.random.default_rng(53).normal(size=(28, 2))
    past[:25, 1] = np.nan
    found = calibrate(np.zeros(2), np.array([1_000.0]), past_of(past), two_sided(2), lasting=False)
    assert found.from_history.tolist() == [True, False]


def test_a_server_that_always_differs_does_not_alarm_and_alarms_when_it_is_like_the_others() -> None:
    rng = np.random.default_rng(54)
    exposure = rng.uniform(200, 400, 29)
    always = 0.5 * np.sqrt(exposure)
    z = rng.normal(size=(29, 1)) + always[:, None]
    past = past_of(z[:-1], exposure[:-1, None])
    assert p_values(z[-1], past, exposure[-1], lasting=True)[0] > 0.01
    assert p_values(np.array([0.0]), past, exposure[-1], lasting=True)[0] < 1e-4
    assert p_values(np.array([0.0]), past, exposure[-1])[0] > 0.9


def test_a_few_drifted_days_do_not_hide_the_next_one() -> None:
    z = np.random.default_rng(55).normal(size=(28, 1))
    z[10:14] = 40.0
    assert p_values(np.array([12.0]), past_of(z))[0] < 1e-3
    assert p_values(np.array([12.0]), past_of(z), lasting=True)[0] < 1e-3


def test_a_difference_that_stays_becomes_usual() -> None:
    z = np.random.default_rng(56).normal(size=(28, 1))
    z[12:] += 10.0
    assert p_values(np.array([10.0]), past_of(z), lasting=True)[0] > 0.05


def trailing(z: Floats) -> Past:
    return Past(z, np.full((len(z), 1), 400.0), DAY, DAY, trails=28 * DAY)


def with_changes(rng: np.random.Generator, columns: int, *days: int, size: float = 0.5) -> Floats:
    """Scores of 56 days, each held against the 28 days before it, of means that differ by 0.05 and step up."""
    mean = rng.normal(0, 0.05, (28 + 57, columns))
    for at in days:
        mean[28 + at :] += size
    before = np.array([mean[day - 28 : day].mean(axis=0) for day in range(28, len(mean))])
    return np.asarray(20 * (mean[28:] - before) + rng.normal(size=before.shape))


@pytest.mark.parametrize("at", [0, 10, 20, 28])
def test_a_change_that_stayed_does_not_hide_the_next_one(at: int) -> None:
    """One of half its size, the other way, is seen as without the first: what made that the past is no habit."""
    columns = 2_000

    def seen(z: Floats, past: Past, moved: float) -> float:
        return float((p_values(z[-1] + moved, past, 400.0) <= 0.01).mean())

    z = with_changes(np.random.default_rng(64), columns, at)
    never = with_changes(np.random.default_rng(64), columns)
    power = seen(never, trailing(never[:-1]), -5.0)
    assert abs(seen(z, trailing(z[:-1]), -5.0) - power) < 0.05
    assert seen(z, past_of(z[:-1], 400.0), -5.0) < power - 0.04
    assert seen(z, trailing(z[:-1]), 0.0) <= tolerated(0.015, columns)[1]


def test_a_change_that_goes_on_is_not_forgiven_before_it_is_the_past() -> None:
    z = with_changes(np.random.default_rng(65), 50, 35)
    assert np.array_equal(p_values(z[-1], trailing(z[:-1]), 400.0), p_values(z[-1], past_of(z[:-1], 400.0), 400.0))


def test_changes_that_come_again_and_again_are_usual() -> None:
    z = with_changes(np.random.default_rng(66), 200, -20, -9, 2, 14, 26, 37)
    assert (p_values(z[-1] + 0.25 * 20, trailing(z[:-1]), 400.0) < 0.01).mean() < 0.2


def test_a_change_that_stayed_hides_the_next_one_no_more_where_a_day_was_broken() -> None:
    """A day of six times the size of what stayed says more of the scores than all others, and counts as one day."""
    rng = np.random.default_rng(68)
    mean = rng.normal(0, 0.05, (28 + 57, 500))
    mean[28 + 21 :] += 0.5
    mean[28 + 12] += 3.0
    before = np.array([mean[day - 28 : day].mean(axis=0) for day in range(28, len(mean))])
    z = 20 * (mean[28:] - before) + rng.normal(size=before.shape)
    assert (p_values(z[-1] + 10, trailing(z[:-1]), 400.0) <= 0.001).mean() > 0.8


def test_a_second_change_alarms_for_as_long_as_the_first() -> None:
    z = with_changes(np.random.default_rng(69), 500, 21, 49)
    assert (p_values(z[-1], trailing(z[:-1]), 400.0) <= 0.01).mean() > 0.6


@pytest.mark.parametrize("days", [20, 35, 56])
def test_means_that_wander_are_taken_for_no_change_that_stayed(days: int) -> None:
    """They are found little more often than as if nothing had been looked for (0.05: 2.3 times as often, before)."""
    rng, columns = np.random.default_rng(70), 2_000
    mean = np.cumsum(rng.normal(0, 0.1, (28 + 57, columns)), axis=0)
    before = np.array([mean[day - 28 : day].mean(axis=0) for day in range(28, len(mean))])
    z = 20 * (mean[28:] - before) + rng.normal(size=before.shape)
    past = z[-days - 1 : -1]
    found = [float((p_values(z[-1], of, 400.0) <= 0.05).mean()) for of in (trailing(past), past_of(past, 400.0))]
    assert found[0] <= 1.35 * found[1]


def test_days_that_only_differ_have_no_change_taken_off() -> None:
    z = np.random.default_rng(67).normal(size=(57, 2_000)) * 3
    assert np.array_equal(p_values(z[-1], trailing(z[:-1]), 400.0), p_values(z[-1], past_of(z[:-1], 400.0), 400.0))


def test_a_past_that_agrees_too_well_makes_nobody_strict() -> None:
    found = calibrate(np.array([1.9]), np.array([1_000.0]), past_of(np.zeros((28, 1))), two_sided(1), lasting=False)
    assert found.spread.tolist() == [1.0]
    assert found.p_value[0] > 0.05


def test_shape_counts_upwards_only() -> None:
    past = past_of(np.random.default_rng(57).normal(size=(28, 2)))
    one_sided = np.array([True, True])
    found = calibrate(np.array([-6.0, 6.0]), np.array([1_000.0]), past, one_sided, lasting=False)
    assert found.p_value[0] > 0.99
    assert found.p_value[1] < 1e-4
    assert np.isfinite(found.z).all()


def test_windows_that_overlap_count_for_less() -> None:
    """Their squares go together as the square of the share that they have in common."""
    past = past_of(np.ones((96, 1)), length=DAY, step=DAY / 4)
    in_common = 1 + 2 * (0.75**2 + 0.5**2 + 0.25**2)
    assert past.independent[0] == pytest.approx(96 / in_common)
    assert past_of(np.ones((96, 1))).independent[0] == 96


def test_many_windows_can_be_judged_at_once() -> None:
    z = np.random.default_rng(58).normal(size=(31, 5))
    past = past_of(z[:28])
    together = calibrate(z[28:], np.full((3, 1), 900.0), past, two_sided(5), lasting=True)
    alone = p_values(z[29], past, 900.0, lasting=True)
    assert together.p_value[1] == pytest.approx(alone)


def test_the_scores_of_features_are_calibrated_by_their_own_past() -> None:
    """A score that no earlier window had is judged by itself, and a feature without a past as for independent rows."""
    scores = [Score("location", 1e-9, 6.0, 0.1), Score("missing", 1e-9, 6.1, 0.2)]
    z = 6.0 * np.random.default_rng(59).normal(size=(28, 1))
    usual = Usual({("a", "location"): 0}, past_of(z))
    found, known = usual.calibrated(["a", "b", "c"], [1_000.0] * 3, [scores, scores, []])
    assert known == [{"location"}, set(), set()]
    assert found[0][0].p_value > 0.05
    assert (found[0][0].effect, found[0][1]) == (0.1, scores[1])
    assert found[1:] == [scores, []]
    assert usual.is_known


def test_what_the_past_has_once_is_no_change_when_it_is_gone() -> None:
    """A day of missing values: they are in the past of the days after it, which have none."""
    z = np.random.default_rng(60).normal(size=(28, 1))
    usual = Usual({("a", "location"): 0}, past_of(z))
    gone = Score("missing", 1e-12, -7.0, -0.03)
    ((_, found),), _ = usual.calibrated(["a"], [1_000.0], [[Score("location", 0.5, 0.7, 0.0), gone]])
    assert (found.p_value, found.effect) == (1.0, -0.03)
    young = Usual({("a", "location"): 0}, past_of(z[:3]))
    assert young.calibrated(["a"], [1_000.0], [[gone]])[0] == [[gone]], "nothing is known yet"


def test_a_score_that_few_windows_had_is_calibrated_by_those() -> None:
    z = np.full((28, 2), np.nan)
    z[:, 0] = np.random.default_rng(61).normal(size=28)
    z[16:, 1] = 40.0 * np.random.default_rng(62).normal(size=12)
    exposure = np.where(np.isfinite(z), 1_000.0, np.nan)
    found = calibrate(
        np.array([0.5, 50.0]), np.array([1_000.0] * 2), Past(z, exposure, DAY, DAY), two_sided(2), lasting=False
    )
    assert np.isfinite(found.p_value).all()
    assert found.p_value[1] > 0.05
