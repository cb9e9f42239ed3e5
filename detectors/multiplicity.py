"""Many comparisons at once: adjusted and combined p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
