"""Many comparisons at once: adjusted p-values, and the share of a false-alarm budget that one window may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

WEEK = timedelta(weeks=1)
LARGEST_ALPHA = 0.499
LARGEST_P = 0.99
SMALLEST_P = 1e-15
"""Below it the tangent is the number itself."""


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's adjusted p-values (Holm 1979), in the order given.

    Calling everything at or below ``alpha`` changed gives at least one false call with probability at most
    ``alpha``, whatever the dependence between the p-values. It does not bound the share of false calls.

    >>> holm([0.118, 0.0211, 0.0213, 0.00218]).round(5)
    array([0.118  , 0.0633 , 0.0633 , 0.00872])
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepwise = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepwise, 1.0)
    return adjusted


def cauchy_p(p_values: Sequence[float]) -> float:
    """One p-value from several of the same data, most right where it is small (Liu and Xie 2020).

    Each becomes a Cauchy variable; their mean is one too where they are independent, and also where they are all the
    same. In between it holds in the tail, whatever the dependence. One very small p counts times their number, as
    with Bonferroni; several small ones count more. What is above LARGEST_P counts as that: a p near 1 must not
    outweigh a small one.

    >>> round(cauchy_p([0.001, 0.7, 0.6]), 5), round(cauchy_p([0.001, 0.001, 0.001]), 5)
    (0.00301, 0.001)
    """
    if min(p_values) < SMALLEST_P:
        return min(1.0, len(p_values) / sum(1 / max(p, math.ulp(0.0)) for p in p_values))
    mean = sum(1 / math.tan(math.pi * min(p, LARGEST_P)) for p in p_values) / len(p_values)
    return 0.5 - math.atan(mean) / math.pi if mean < 1 else math.atan(1 / mean) / math.pi


def window_alpha(false_alarms_per_week: float, window: timedelta, sharers: int) -> float:
    """The alpha of one window when ``sharers`` policies share a weekly budget of false alarms.

    The expected number of false windows is the sum of the alphas of the windows judged, however they depend on
    each other. So windows of one length, side by side, spend ``false_alarms_per_week / sharers`` a week; windows
    that overlap are more windows, and spend more. It says nothing about the chance of any false window at all.

    >>> window_alpha(1.0, timedelta(hours=1), sharers=1) * 7 * 24
    1.0
    """
    if false_alarms_per_week < 0 or window <= timedelta(0) or sharers < 1:
        raise ValueError(
            f"a budget of {false_alarms_per_week} a week, windows of {window} and {sharers} sharers: "
            "the budget must not be negative, the window and the sharers must be positive"
        )
    return min(false_alarms_per_week / sharers * (window / WEEK), LARGEST_ALPHA)
