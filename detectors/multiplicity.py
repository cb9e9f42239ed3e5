"""Many comparisons at once: adjusted p-values, and the share of a false-alarm budget that one window may spend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

WEEK = timedelta(weeks=1)
LARGEST_ALPHA = 0.499


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
