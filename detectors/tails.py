"""Tail probabilities of "both sides are random parts of the same rows".

The rows in each cell, over both sides together, are fixed; which of them fell on the current side is chance.
Nothing is assumed about the distribution of a feature.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, gammaln, ndtr

Floats = NDArray[np.float64]

LARGEST_EXACT_VARIANCE = 400.0
"""Above it (20 rows of standard deviation) the normal tail is used; below, every term is summed."""
SAME = 1e-6
"""Relative difference of probabilities that is rounding."""


def hypergeometric_p(hits: Floats, pooled_hits: Floats, n: float, m: float) -> Floats:
    """Two-sided mid-p of ``hits`` among ``n`` rows when ``pooled_hits`` of all ``n + m`` rows are hits.

    The probability of all less likely numbers of hits, and half of that of equally likely ones (Fisher and Irwin's
    two sides, mid-p of Lancaster 1961). Right for rare hits, where a normal score makes a false alarm up to 13 times
    as likely as it says. Numbers that are not whole are rounded. Arrays give one p-value for each place.

    >>> hypergeometric_p(np.array([3.0]), np.array([3.0]), 100, 900).round(6)
    array([0.000487])
    """
    n, m = round(n), round(m)
    x = np.rint(hits)
    k = x + np.rint(pooled_hits - hits)
    total = n + m
    mean = n * k / total
    variance = mean * (m / total) * (total - k) / max(total - 1, 1)
    # Mirrored to misses where needed, so that what was seen never lies below the mean.
    lower = x < mean
    x, k = np.where(lower, n - x, x), np.where(lower, total - k, k)
    p = np.ones(len(x))
    normal = variance > LARGEST_EXACT_VARIANCE
    p[normal] = 2 * ndtr(-np.abs(x - n * k / total)[normal] / np.sqrt(variance[normal]))
    exact = ~normal & (variance > 0)
    if exact.any():
        terms = np.arange(int(9 * math.sqrt(float(variance[exact].max()))) + 25)
        p[exact] = _less_likely(x[exact], k[exact], n, m, terms)
    return p


def _less_likely(x: Floats, k: Floats, n: int, m: int, terms: NDArray[np.int64]) -> Floats:
    """For ``x`` at or above the mean: the tail beyond it, and the tail below the mode of what is less likely."""
    rest = m - k
    seen = np.exp(_log_pmf(x, k, n, m))
    i = x[:, None] + terms
    up = (k[:, None] - i) * (n - i) / ((i + 1) * (rest[:, None] + i + 1))
    beyond = seen * (0.5 + np.cumprod(np.maximum(up, 0.0), axis=1).sum(axis=1))
    start = np.minimum(x - 1, np.floor((n + 1) * (k + 1) / (n + m + 2)))
    i = start[:, None] - terms[:-1]
    down = i * (rest[:, None] + i) / ((k[:, None] - i + 1) * (n - i + 1))
    ratios = np.cumprod(np.column_stack([np.ones(len(x)), np.where(i > 0, np.maximum(down, 0.0), 0.0)]), axis=1)
    below = np.exp(_log_pmf(start, k, n, m))[:, None] * ratios
    weights = 0.5 * (below <= seen[:, None] * (1 + SAME)) + 0.5 * (below < seen[:, None] * (1 - SAME))
    return np.asarray(np.minimum(1.0, beyond + (weights * below).sum(axis=1)), dtype=np.float64)


def _log_pmf(x: Floats, k: Floats, n: int, m: int) -> Floats:
    total = n + m
    return np.asarray(
        (gammaln(k + 1) - gammaln(x + 1) - gammaln(k - x + 1))
        + (gammaln(total - k + 1) - gammaln(n - x + 1) - gammaln(m - k + x + 1))
        - (gammaln(total + 1) - gammaln(n + 1) - gammaln(m + 1)),
        dtype=np.float64,
    )


def sum_p(sum_of_scores: float, third_moment: float, n: float, m: float) -> float:
    """Two-sided p-value of the sum over ``n`` rows of a score that has mean 0 and variance 1 over all ``n + m`` rows.

    The tail is that of a Pearson type III distribution with the exact mean, variance and skewness of the sum over
    random subsets (Mielke and Berry 2007), so it stays right for skewed scores and sides of different size.

    third_moment
        Mean cube of the score over all rows.

    >>> round(sum_p(19.6 * (900 / 999) ** 0.5, 0.0, 100, 900), 3)
    0.05
    """
    total = n + m
    variance = n * m / (total - 1)
    z = sum_of_scores / math.sqrt(variance)
    skewness = (m - n) / (total - 2) * third_moment / math.sqrt(variance)
    if abs(skewness) < 1e-4:
        return float(2 * ndtr(-abs(z)))
    shape = 4 / skewness**2
    at = shape + math.copysign(z, z * skewness) * math.sqrt(shape)
    upper = float(gammaincc(shape, max(at, 0.0)))
    return min(1.0, 2 * min(upper, 1 - upper) if upper > 0.5 else 2 * upper)


def chi_square_p(statistic: float, degrees: int) -> float:
    """One-sided p-value of a chi-square statistic.

    >>> round(chi_square_p(3.841459, 1), 6)
    0.05
    """
    return float(gammaincc(degrees / 2, statistic / 2))
