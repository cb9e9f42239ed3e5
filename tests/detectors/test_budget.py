"""The budget of false alarms adds up, whatever is looked at."""

from datetime import timedelta

import pytest

from detectors.budget import RESERVED, WEIGHTS, Look, split

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LENGTHS = (HOUR, 6 * HOUR, DAY)


def test_all_alphas_of_a_week_and_the_reserve_are_the_budget() -> None:
    looks = [Look(detector, length, max(HOUR, length / 3)) for detector in WEIGHTS for length in LENGTHS]
    shares = split(2.0, looks)
    assert [share.look for share in shares] == looks
    spent = sum(share.alpha * (timedelta(weeks=1) / share.look.step) for share in shares)
    assert spent == pytest.approx(2.0 * (1 - RESERVED))


def test_what_a_model_does_not_have_takes_nothing() -> None:
    alone = split(1.0, [Look("drift", DAY, DAY)])
    assert alone[0].per_week == pytest.approx(1 - RESERVED)


def test_accuracy_keeps_its_share_beside_many_windows_of_drift() -> None:
    looks = [Look("accuracy_drop", DAY, DAY), *(Look("drift", length, HOUR) for length in LENGTHS)]
    shares = split(1.0, looks)
    assert shares[0].per_week == pytest.approx(
        0.9 * WEIGHTS["accuracy_drop"] / (WEIGHTS["accuracy_drop"] + WEIGHTS["drift"])
    )


def test_windows_that_overlap_are_more_and_each_spends_less() -> None:
    apart, overlapping = (split(1.0, [Look("drift", DAY, step)])[0] for step in (DAY, DAY / 4))
    assert overlapping.alpha == pytest.approx(apart.alpha / 4)


def test_windows_judged_again_and_again_stay_within_the_reserve() -> None:
    share = split(1.0, [Look("drift", HOUR, HOUR)])[0]
    again = sum(share.alpha_again(times) for times in range(1, 5_000))
    assert again * share.windows_per_week == pytest.approx(RESERVED, rel=1e-3)
    assert share.alpha_again(8) > share.alpha / 1_000


def test_alpha_stays_below_one_half() -> None:
    assert split(1_000.0, [Look("drift", DAY, DAY)])[0].alpha < 0.5


@pytest.mark.parametrize(
    ("budget", "looks", "told"),
    [
        (-1.0, [Look("drift", DAY, DAY)], "negative"),
        (1.0, [Look("weather", DAY, DAY)], "'weather' has no share"),
        (1.0, [Look("drift", DAY, timedelta(0))], "positive"),
        (1.0, [Look("drift", DAY, DAY), Look("drift", DAY, HOUR)], "twice"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(budget: float, looks: list[Look], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        split(budget, looks)
