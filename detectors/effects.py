"""How large a difference between two count vectors is, whatever its p-value."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detectors.layout import FeatureCells

Floats = NDArray[np.float64]

PSI_SMOOTHING = 0.5
"""Rows added to every cell that either side occupies, so that an empty cell weighs little and never infinitely."""
SMALLEST_SD = 1e-9
"""Of the feature's range; less is rounding."""


def jensen_shannon(baseline: Floats, current: Floats) -> float:
    """The Jensen-Shannon distance to base 2 (Endres and Schindelin 2003): 0 when alike, 1 without a common cell.

    Chance alone gives about ``sqrt((k - 1) / (8 ln 2) * (1/n + 1/m))`` with k cells. Needs rows on both sides.

    >>> jensen_shannon(np.array([5.0, 0.0]), np.array([0.0, 9.0]))
    1.0
    """
    p, q = current / current.sum(), baseline / baseline.sum()
    middle = (p + q) / 2
    return math.sqrt(min(1.0, max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)))


def psi(baseline: Floats, current: Floats) -> float:
    """The population stability index, with half a row added to every cell that either side occupies.

    It has no threshold that holds for all window sizes: chance alone gives about ``(k - 1) * (1/n + 1/m)``.

    >>> psi(np.array([10.0, 0.0]), np.array([10.0, 0.0]))
    0.0
    """
    used = baseline + current > 0
    p, q = current[used] + PSI_SMOOTHING, baseline[used] + PSI_SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    return float((p - q) @ np.log(p / q))


def location_auc(baseline: Floats, current: Floats) -> float:
    """The chance that a current row exceeds a baseline row (ties count half), minus 1/2, over ordered cells.

    >>> location_auc(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    0.5
    """
    p, q = current / current.sum(), baseline / baseline.sum()
    return float(p @ (np.cumsum(q) - q / 2)) - 0.5


def wasserstein_sd(cells: FeatureCells, baseline: Floats, current: Floats) -> float | None:
    """The 1-Wasserstein distance over the baseline's standard deviation; both sides as one value for each cell.

    Rows outside the range count as if they stood at its end, so a far jump is understated. None when no cell of
    the feature has an order, one side has no row there, or the baseline does not vary.
    """
    q, p = baseline[: cells.ordered], current[: cells.ordered]
    if not q.any() or not p.any():
        return None
    p, q = p / p.sum(), q / q.sum()
    at = cells.representatives
    largest = float(np.abs(at).max())
    if not 0 < largest < math.inf:
        return None
    at = at / largest
    at = at - at[0]
    sd = math.sqrt(float(q @ (at - float(q @ at)) ** 2))
    return float(np.abs(np.cumsum(p - q)[:-1]) @ np.diff(at)) / sd if sd > SMALLEST_SD * at[-1] else None


def _relative_entropy(p: Floats, q: Floats) -> float:
    used = p > 0
    return float(p[used] @ np.log2(p[used] / q[used]))
