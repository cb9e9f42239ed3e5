"""How large a difference between two count vectors is, whatever its p-value.

All are shown beside findings and none has a threshold: with few rows chance alone makes them large, and with many
rows the chi-square and G statistics are large whatever small difference there is. Their values depend on the cells,
so they compare only over one layout; what other tools give for raw rows is in ``detectors.parity``.
"""

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


def hellinger(baseline: Floats, current: Floats) -> float:
    """The Hellinger distance (1909): 0 when alike, 1 without a common cell.

    It sees the same as the Jensen-Shannon distance, and like that one says nothing of which way values moved. Chance
    alone gives about ``sqrt((k - 1) / 8 * (1/n + 1/m))`` with k cells. Needs rows on both sides.

    >>> hellinger(np.array([5.0, 0.0]), np.array([0.0, 9.0]))
    1.0
    """
    p, q = current / current.sum(), baseline / baseline.sum()
    return math.sqrt(float(((np.sqrt(p) - np.sqrt(q)) ** 2).sum()) / 2)


def total_variation(baseline: Floats, current: Floats) -> float:
    """The share of rows that would have to change cell to make both sides alike: half the sum of differences of shares.

    A move to the next cell counts as much as one across the whole range, and a change within a cell is not seen.
    Chance alone gives about ``sqrt(k / (2 pi) * (1/n + 1/m))`` with k cells of the same size. Needs rows on both
    sides.

    >>> round(total_variation(np.array([90.0, 10.0]), np.array([80.0, 20.0])), 12)
    0.1
    """
    return float(np.abs(current / current.sum() - baseline / baseline.sum()).sum()) / 2


def kolmogorov_smirnov(baseline: Floats, current: Floats) -> float:
    """The greatest difference of the shares of rows up to a cell, over ordered cells: between 0 and 1.

    The two-sample D statistic of the rows (Smirnov 1939) also looks within cells; it is larger by at most the share
    of rows in a cell, 1/32 where the cells are the baseline's quantiles, and by nothing where a cell is one value. It
    sees a move of the middle well, and one in the tails, or of the variance, badly. Needs rows with an ordered value
    on both sides.

    >>> kolmogorov_smirnov(np.array([5.0, 5.0, 0.0]), np.array([0.0, 5.0, 5.0]))
    0.5
    """
    return float(np.abs(np.cumsum(current / current.sum() - baseline / baseline.sum())).max())


def chi_square(baseline: Floats, current: Floats) -> float:
    """Pearson's statistic of the table of two sides by k cells, both sides being random (1900).

    Not an effect size by itself: chance alone gives about k - 1 whatever the number of rows, and a difference of any
    size gives a value in proportion to ``1 / (1/n + 1/m)``. Cells that neither side occupies do not count. It has a
    p-value only where few cells are expected to hold less than five rows; ``detectors.scores`` takes care of that.

    >>> round(chi_square(np.array([30.0, 20.0]), np.array([20.0, 30.0])), 12)
    4.0
    """
    used = baseline + current > 0
    p, q = current[used] / current.sum(), baseline[used] / baseline.sum()
    pooled = (current[used] + baseline[used]) / (current.sum() + baseline.sum())
    return float(((p - q) ** 2 / pooled).sum() / (1 / current.sum() + 1 / baseline.sum()))


def g_statistic(baseline: Floats, current: Floats) -> float:
    """Twice the rows times the mutual information of that table, in nats: its likelihood ratio statistic (Wilks 1938).

    As with ``chi_square``, chance alone gives about k - 1 and more rows give more; the two agree where differences
    are small. With expected counts below five it is larger than chance should make it, more so than Pearson's.

    >>> round(g_statistic(np.array([30.0, 20.0]), np.array([20.0, 30.0])), 6)
    4.027103
    """
    rows, pooled = current.sum() + baseline.sum(), current + baseline
    found = 0.0
    for side in (current, baseline):
        used = side > 0
        found += float(side[used] @ np.log(side[used] * rows / (pooled[used] * side.sum())))
    return max(0.0, 2 * found)


def named_statistics(cells: FeatureCells, baseline: Floats, current: Floats) -> dict[str, float]:
    """The eight statistics that people know by name, of one feature's counts. Needs rows on both sides.

    ``kolmogorov_smirnov`` and ``wasserstein_sd`` are of the ordered cells, and are left out where there is none with
    rows; all others are of all cells, missing values included.

    >>> from detectors.layout import Kind
    >>> flag = FeatureCells("flag", Kind.CATEGORICAL, levels=("no", "yes"))
    >>> before, after = np.array([900.0, 100.0, 0, 0, 0, 0]), np.array([800.0, 200.0, 0, 0, 0, 0])
    >>> {name: round(value, 3) for name, value in named_statistics(flag, before, after).items()}
    {'psi': 0.081, 'jensen_shannon': 0.12, 'hellinger': 0.1, 'total_variation': 0.1, 'chi_square': 39.216, 'g': 39.866}
    """
    named = {
        "psi": psi(baseline, current),
        "jensen_shannon": jensen_shannon(baseline, current),
        "hellinger": hellinger(baseline, current),
        "total_variation": total_variation(baseline, current),
        "chi_square": chi_square(baseline, current),
        "g": g_statistic(baseline, current),
    }
    ordered_baseline, ordered_current = baseline[: cells.ordered], current[: cells.ordered]
    if ordered_baseline.any() and ordered_current.any():
        named["kolmogorov_smirnov"] = kolmogorov_smirnov(ordered_baseline, ordered_current)
        distance = wasserstein_sd(cells, baseline, current)
        if distance is not None:
            named["wasserstein_sd"] = distance
    return named


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
