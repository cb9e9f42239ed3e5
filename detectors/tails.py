"""Tail probabilities of "both sides are random parts of the same rows".

The rows in each cell, over both sides together, are fixed; which of them fell on the current side is chance.
Nothing is assumed about the distribution of a feature.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammaln, log_ndtr, ndtr, ndtri_exp

Floats = NDArray[np.float64]

LARGEST_EXACT_VARIANCE = 400.0
"""Above it (20 rows of standard deviation) the normal tail is used; below, every term is summed."""
SAME = 1e-6
"""Relative difference of probabilities that is rounding."""
LEAST_CERTAIN = -1e-16
"""The logarithm of the largest p-value below 1 that is told apart from 1."""
LOG_TINY = -690.0
"""The logarithm of a probability near the least that a float holds."""


def hypergeometric_p(hits: Floats, pooled_hits: Floats, n: float, m: float) -> Floats:
    """Two-sided mid-p of ``hits`` among ``n`` rows when ``pooled_hits`` of all ``n + m`` rows are hits.

    The probability of all less likely numbers of hits, and half of that of equally likely ones (Fisher and Irwin's
    two sides, mid-p of Lancaster 1961). Right for rare hits, where a normal score makes a false alarm up to 13 times
    as likely as it says. Numbers that are not whole are rounded. Arrays give one p-value for each place.

    >>> hypergeometric_p(np.array([3.0]), np.array([3.0]), 100, 900).round(6)
    array([0.000487])
    """
    return np.asarray(np.exp(hypergeometric_log_p(hits, pooled_hits, n, m)), dtype=np.float64)


def hypergeometric_log_p(hits: Floats, pooled_hits: Floats, n: float, m: float) -> Floats:
    """The natural logarithm of ``hypergeometric_p``, also where that is too small for a float."""
    n, m = round(n), round(m)
    x = np.rint(hits)
    k = x + np.rint(pooled_hits - hits)
    total = n + m
    mean = n * k / total
    variance = mean * (m / total) * (total - k) / max(total - 1, 1)
    # Mirrored to misses where needed, so that what was seen never lies below the mean.
    lower = x < mean
    x, k = np.where(lower, n - x, x), np.where(lower, total - k, k)
    log_p = np.zeros(len(x))
    normal = variance > LARGEST_EXACT_VARIANCE
    log_p[normal] = math.log(2) + log_ndtr(-np.abs(x - n * k / total)[normal] / np.sqrt(variance[normal]))
    exact = ~normal & (variance > 0)
    if exact.any():
        terms = np.arange(int(9 * math.sqrt(float(variance[exact].max()))) + 25)
        log_p[exact] = _less_likely(x[exact], k[exact], n, m, terms)
    return log_p


def _less_likely(x: Floats, k: Floats, n: int, m: int, terms: NDArray[np.int64]) -> Floats:
    """For ``x`` at or above the mean: the tail beyond it, and the tail below the mode of what is less likely."""
    rest = m - k
    log_seen = _log_pmf(x, k, n, m)
    i = x[:, None] + terms
    up = (k[:, None] - i) * (n - i) / ((i + 1) * (rest[:, None] + i + 1))
    beyond = 0.5 + np.cumprod(np.maximum(up, 0.0), axis=1).sum(axis=1)
    start = np.minimum(x - 1, np.floor((n + 1) * (k + 1) / (n + m + 2)))
    i = start[:, None] - terms[:-1]
    down = i * (rest[:, None] + i) / ((k[:, None] - i + 1) * (n - i + 1))
    ratios = np.cumprod(np.column_stack([np.ones(len(x)), np.where(i > 0, np.maximum(down, 0.0), 0.0)]), axis=1)
    # In units of the probability of what was seen, which may be too small for a float; so may be what is below.
    below = np.exp(np.minimum(_log_pmf(start, k, n, m) - log_seen, -LOG_TINY))[:, None] * ratios
    weights = 0.5 * (below <= 1 + SAME) + 0.5 * (below < 1 - SAME)
    return np.asarray(
        np.minimum(0.0, log_seen + np.log(beyond + np.where(weights > 0, weights * below, 0.0).sum(axis=1))),
        dtype=np.float64,
    )


def _log_pmf(x: Floats, k: Floats, n: int, m: int) -> Floats:
    total = n + m
    return np.asarray(
        (gammaln(k + 1) - gammaln(x + 1) - gammaln(k - x + 1))
        + (gammaln(total - k + 1) - gammaln(n - x + 1) - gammaln(m - k + x + 1))
        - (gammaln(total + 1) - gammaln(n + 1) - gammaln(m + 1)),
        dtype=np.float64,
    )


def sum_z(sum_of_scores: float, third_moment: float, n: float, m: float) -> float:
    """The normal score of the sum over ``n`` rows of a score that has mean 0 and variance 1 over all ``n + m`` rows.

    The tail is that of a Pearson type III distribution with the exact mean, variance and skewness of the sum over
    random subsets (Mielke and Berry 2007), so it stays right for skewed scores and sides of different size. It is
    made normal by the cube root (Wilson and Hilferty 1931), which makes p-values at most a few percent too large.

    third_moment
        Mean cube of the score over all rows.

    >>> round(sum_z(19.6 * (900 / 999) ** 0.5, 0.0, 100, 900), 3)
    1.96
    """
    total = n + m
    variance = n * m / (total - 1)
    z = sum_of_scores / math.sqrt(variance)
    skewness = (m - n) / (total - 2) * third_moment / math.sqrt(variance)
    if abs(skewness) < 1e-4:
        return z
    root = 2 / skewness
    return 3 * root * (float(np.cbrt(1 + z / root)) - 1 + 1 / (9 * root**2))


def chi_square_log_p(statistic: float, degrees: int) -> float:
    """The natural logarithm of the one-sided p-value of a chi-square statistic, also where that p is too small.

    >>> round(math.exp(chi_square_log_p(3.841459, 1)), 6)
    0.05
    """
    a, x = degrees / 2, statistic / 2
    upper = float(gammaincc(a, x))
    if upper > 0.5:
        return math.log1p(-float(gammainc(a, x)))
    if upper > math.exp(LOG_TINY):
        return math.log(upper)
    # Two steps of Legendre's continued fraction, which are plenty this far out.
    return a * math.log(x) - x - float(gammaln(a)) - math.log(x + 1 - a + (a - 1) / (x + 3 - a))


def two_sided_z(log_p: float) -> float:
    """The size of the normal score with the two-sided p-value ``exp(log_p)``.

    >>> round(two_sided_z(math.log(0.05)), 3), round(two_sided_z(-10_000.0), 1)
    (1.96, 141.4)
    """
    return max(0.0, -float(ndtri_exp(log_p - math.log(2))))


def one_sided_z(log_p: float) -> float:
    """The normal score with the one-sided p-value ``exp(log_p)``: negative above one half, never infinite.

    >>> round(one_sided_z(math.log(0.05)), 3), round(one_sided_z(0.0), 1)
    (1.645, -8.2)
    """
    return -float(ndtri_exp(min(log_p, LEAST_CERTAIN)))


def two_sided_p(z: float) -> float:
    """The two-sided p-value of a normal score.

    >>> round(two_sided_p(-1.96), 3)
    0.05
    """
    return float(2 * ndtr(-abs(z)))
