"""How sure a silence is: hardly ever by chance, whatever the traffic's shape, and soon where somebody died."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from detectors.silence import Record, Silence, of_season, of_share

DAY = 24 * 60
DAYS = 22
FALSE_RATE = 1e-4
"""What is claimed here of the share of windows with a false accusation; nominally it is a billionth."""
Minutes = NDArray[np.float64]


def served(seed: int, rate: float, *, clump: int = 1, seasonal: bool = False, servers: int = 8) -> Minutes:
    """Rows per server and minute; ``clump`` is the mean number of rows that come to one server at once."""
    rng = np.random.default_rng(seed)
    minute = np.arange(DAYS * DAY)
    night, weekend = minute // 60 % 24 < 6, minute // DAY % 7 >= 5
    level = rate * np.where(night, 0.02, 1.0) * np.where(weekend, 0.3, 1.0) if seasonal else np.full(len(minute), rate)
    shares = rng.dirichlet(np.full(servers, 5.0))
    clumps = rng.poisson(shares[:, None] * level / clump)
    return (clumps + rng.negative_binomial(np.maximum(clumps, 1), 1 / clump) * (clumps > 0)).astype(float)


def record(minutes: Minutes, end: int) -> Record:
    """What was known at a minute, of two weeks and a day."""
    hours = minutes[max(end - 15 * DAY, 0) : end - 60].reshape(-1, 60)
    rest = (np.argmax(hours[:, ::-1] > 0, axis=1) + 1) / 60
    return Record(hours.sum(axis=1), rest, minutes[end - 60 : end])


def looks(minutes: Minutes, first: int = 15 * DAY, every: int = 180) -> Iterator[Silence | None]:
    """The silence of each server, at many times."""
    whole = minutes.sum(axis=0)
    for end in range(first, minutes.shape[1], every):
        model = record(whole, end)
        yield from (of_share(record(server, end), model) for server in minutes)


def hours_until_found(minutes: Minutes, died: int, server: int) -> float:
    whole = minutes.sum(axis=0)
    for end in range(died // 60 * 60 + 60, minutes.shape[1], 60):
        silence = of_share(record(minutes[server], end), record(whole, end))
        if silence is not None and silence.severity >= 1:
            return (end - died) / 60
    return np.inf


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize("clump", [1, 40])
@pytest.mark.parametrize("rate", [0.2, 2.0, 40.0, 1000.0])
def test_servers_are_hardly_ever_silent_by_chance(rate: float, clump: int, *, seasonal: bool) -> None:
    found = [s for s in looks(served(1, rate, clump=clump, seasonal=seasonal)) if s is not None and s.steady]
    accused = sum(s.severity >= 1 for s in found)
    assert len(found) >= 50
    assert accused <= binom.ppf(0.999, len(found), FALSE_RATE)


@pytest.mark.parametrize("hours", [13, 24, 72])
def test_so_are_servers_that_have_not_served_for_long(hours: int) -> None:
    found = []
    for seed in range(10):
        minutes = served(seed, 5.0, clump=20, seasonal=True)
        minutes[:, : 15 * DAY - hours * 60] = 0
        found += [s for s in looks(minutes, first=15 * DAY, every=720) if s is not None and s.steady]
    assert sum(s.severity >= 1 for s in found) <= binom.ppf(0.999, len(found), FALSE_RATE)


@pytest.mark.parametrize(
    ("rate", "clump", "within"), [(1000.0, 1, 1.0), (40.0, 1, 1.0), (2.0, 1, 12.0), (1000.0, 40, 4.0), (200.0, 40, 8.0)]
)
def test_a_server_that_dies_is_found(rate: float, clump: int, within: float) -> None:
    minutes = served(2, rate, clump=clump)
    died = 18 * DAY + 10 * 60 + 5
    minutes[0, died:] = 0
    assert hours_until_found(minutes, died, 0) <= within


def test_a_silence_lasts_until_it_ends() -> None:
    minutes = served(2, 40.0)
    died = 18 * DAY + 10 * 60 + 5
    minutes[0, died:] = 0
    whole = minutes.sum(axis=0)
    ends = range(died + 115, 21 * DAY, 60)
    silences = [of_share(record(minutes[0], end), record(whole, end)) for end in ends]
    assert min(s.severity for s in silences if s is not None) >= 1
    minutes[0, ends[-1] - 10] = 5
    back = of_share(record(minutes[0], ends[-1]), record(whole, ends[-1]))
    assert back is not None
    assert back.severity < 1


@pytest.mark.parametrize("share", [0.1, 0.01, 0.001])
def test_a_share_that_is_turned_down_is_no_silence(share: float) -> None:
    """A canary's opposite: half of the rows until a quarter past, then next to none."""
    accused = 0
    for seed in range(40):
        minutes = served(seed, 1000.0, servers=2)
        turned = 18 * DAY + 10 * 60 + 15
        minutes[0, turned:] = np.random.default_rng(seed).poisson(1000 * share / 2, minutes.shape[1] - turned)
        whole = minutes.sum(axis=0)
        for end in range(turned + 45, turned + 45 + 6 * 60, 60):
            silence = of_share(record(minutes[0], end), record(whole, end))
            accused += silence is not None and silence.severity >= 1
    assert accused <= binom.ppf(0.999, 40 * 6, FALSE_RATE)


def test_a_model_is_not_expected_to_serve_when_it_never_did() -> None:
    minutes = served(3, 40.0, seasonal=True).sum(axis=0)
    minute = np.arange(len(minutes))
    minutes[minute // 60 % 24 < 7] = 0
    minutes[minute // DAY % 7 >= 5] = 0
    found = [of_season(record(minutes, end)) for end in range(15 * DAY, len(minutes), 60)]
    known = [s for s in found if s is not None]
    assert len(known) == len(found)
    assert not any(s.severity >= 1 for s in known)


@pytest.mark.parametrize("day", [16, 18, 20])
def test_a_model_that_goes_silent_is_found(day: int) -> None:
    minutes = served(3, 40.0, seasonal=True).sum(axis=0)
    died = day * DAY + 12 * 60 + 5
    minutes[died:] = 0
    silence = of_season(record(minutes, died + 55))
    assert silence is not None
    assert silence.severity >= 1


def test_a_model_that_pauses_at_no_fixed_time_is_not_accused_again() -> None:
    minutes = served(3, 40.0).sum(axis=0)
    for hour in (15 * 24 + 3, 16 * 24 + 17, 19 * 24 + 2):
        minutes[hour * 60 : hour * 60 + 120] = 0
    silence = of_season(record(minutes, (19 * 24 + 4) * 60))
    assert silence is not None
    assert silence.severity >= 1
    assert silence.before == 2


def test_a_model_that_is_not_known_for_a_week_is_not_judged() -> None:
    minutes = served(3, 40.0).sum(axis=0)
    minutes[: 9 * DAY] = 0
    assert of_season(record(minutes, 15 * DAY)) is None
    assert of_season(record(np.zeros(16 * DAY), 16 * DAY)) is None
