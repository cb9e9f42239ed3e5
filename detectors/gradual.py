"""Slow drift: days of which none is remarkable, and all of which lean to one side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COMPONENTS = ("location", "scale", "missing")
"""Scores whose sign says into which direction it goes."""
MOST_ALIKE = 0.9
"""Correlation of a day with the one before that is assumed at most."""
LARGEST_STEP = 3.0
"""Differences from one day to the next are cut to so many of their usual deviations."""
LARGEST_SCORE = 3.0
"""What a day's score is cut to: a broken day is no slow drift, and would otherwise be told of as one for weeks."""
STEPS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
"""Changes that are looked for, in standard deviations of a day's score."""


@dataclass(frozen=True)
class Evidence:
    """What the days up to each one say; a row for each day, a column for each score.

    log_e
        Logarithm of the evidence for a change. Chance brings it above ``log(T)`` once in ``T`` days or less often.
    since
        Index of the first day of the change, by the step that fits best.
    """

    log_e: Floats
    since: NDArray[np.int64]

    @property
    def p_value(self) -> Floats:
        """What to hold against an alpha per day."""
        return np.exp(-np.maximum(self.log_e, 0.0))


def mean_evidence(found: Evidence) -> tuple[float, int, int]:
    """What the last day says of several scores of one feature: log e, first day of the change, and which score.

    The mean of their evidence, as each may be the one that changed.
    """
    last = found.log_e[-1]
    most = int(last.argmax())
    return float(last[most] + np.log(np.exp(last - last[most]).mean())), int(found.since[-1, most]), most


def evidence(daily: Floats) -> Evidence:
    """The e-detector of a change that stays or grows (Shin, Ramdas and Rinaldo 2022), over days side by side.

    For each step a sum of ``step * z - step**2 / 2`` that begins anew where it is below zero; the evidence is the mean
    of their exponentials. Needs scores that are standard normal, or less than that, whatever the days before were:
    where a day resembles the one before, divide them by ``persistence`` first. Each is cut to ``LARGEST_SCORE``,
    which only takes evidence away.
    A past that trails by 28 days takes up a slow change in time: one of less than a thirtieth of a day's standard
    deviation a day is not seen. The mean of the evidence of several scores is evidence too.

    daily
        Calibrated signed scores: a row for each day, oldest first, a column for each score. NaN: not judged that day.

    >>> found = evidence(np.array([[0.0], [0.0], *[[1.5]] * 8]))
    >>> found.log_e[-1].round(1), found.since[-1]
    (array([6.6]), array([2]))
    """
    steps = np.array(STEPS)[:, None]
    sums = np.zeros((len(STEPS), daily.shape[1]))
    began = np.zeros(sums.shape, dtype=np.int64)
    log_e, since = np.zeros_like(daily), np.zeros(daily.shape, dtype=np.int64)
    for day, z in enumerate(np.clip(daily, -LARGEST_SCORE, LARGEST_SCORE)):
        began = np.where(sums > 0, began, day)
        sums = np.maximum(sums, 0.0) + np.where(np.isfinite(z), steps * z - steps**2 / 2, 0.0)
        best = sums.argmax(axis=0)
        largest = sums.max(axis=0)
        log_e[day] = largest + np.log(np.exp(sums - largest).mean(axis=0))
        since[day] = began[best, np.arange(len(z))]
    return Evidence(log_e, since)


def persistence(daily: Floats) -> Floats:
    """By how much more sums of these scores spread than those of independent days, for each column; at least 1.

    Weather and prices go on from one day to the next: unusual days come in rows without any change. For scores of
    variance 1 that follow an AR(1), the differences between neighbours have the variance ``2 (1 - r)``, also while
    they slowly drift, and sums have ``(1 + r) / (1 - r)`` times the variance of independent ones. It is an estimate:
    of few days a rough one, of scores that are not calibrated a wrong one.

    >>> days = np.random.default_rng(1).normal(size=(56, 2))
    >>> days[:, 1] = np.cumsum(days[:, 1]) / 3
    >>> persistence(days).round(1)
    array([1. , 4.4])
    """
    squares = np.minimum(np.diff(daily, axis=0) ** 2 / 2, LARGEST_STEP**2)
    known = np.isfinite(squares)
    of_steps = np.where(known, squares, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    alike = np.where(known.any(axis=0), np.clip(1 - of_steps, 0.0, MOST_ALIKE), 0.0)
    return np.asarray(np.sqrt((1 + alike) / (1 - alike)))
