"""Tail probabilities of "both sides are random parts of the same rows".

The rows in each cell, over both sides together, are fixed; which of them fell on the current side is chance.
Nothing is assumed about the distribution of a feature.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincc, gammaln, log_ndtr, logsumexp, ndtri_exp

Floats = NDArray[np.float64]
Numbers = Floats | float

LARGEST_EXACT_VARIANCE = 150.0
"""Above it (12 rows of standard deviation) the tail has the exact skewness; below, every term is summed."""
FEW_TERMS_VARIANCE = 12.0
"""Up to it less than half of the terms are needed, so these sums are made apart."""
SAME = 1e-6
"""Relative difference of probabilities that is rounding."""
LEAST_CERTAIN = -1e-16
"""The logarithm of the largest p-value below 1 that is told apart from 1."""
TINY = 1e-300
"""A probability near the least that a float holds."""
SMALLEST_SKEWNESS = 1e-4


def hypergeometric_p(hits: Floats, pooled_hits: Floats, n: Numbers, m: Numbers) -> Floats:
    """Two-sided mid-p of ``hits`` among ``n`` rows when ``pooled_hits`` of all ``n + m`` rows are hits.

    The probability of all less likely numbers of hits, and half of that of equally likely ones (Fisher and Irwin's
    two sides, mid-p of Lancaster 1961). Right for rare hits, where a normal score makes a false alarm up to 13 times
    as likely as it says. Numbers that are not whole are rounded: hits and rows of each side in the same way, so that
    no side has more hits than rows. Arrays give one p-value for each place.

    >>> hypergeometric_p(np.array([3.0]), np.array([3.0]), 100, 900).round(6)
    array([0.000487])
    """
    return np.asarray(np.exp(hypergeometric_log_p(hits, pooled_hits, n, m)), dtype=np.float64)


def hypergeometric_log_p(hits: Floats, pooled_hits: Floats, n: Numbers, m: Numbers) -> Floats:
    """The natural logarithm of ``hypergeometric_p``, also where that is too small for a float."""
    x = np.rint(hits)
    k = x + np.rint(pooled_hits - hits)
    n, m = np.broadcast_to(np.rint(n), x.shape), np.broadcast_to(np.rint(m), x.shape)
    total = np.maximum(n + m, 1)
    mean = n * k / total
    variance = mean * (m / total) * (total - k) / np.maximum(total - 1, 1)
    log_p = np.zeros(len(x))
    large = variance > LARGEST_EXACT_VARIANCE
    root_variance = np.sqrt(variance[large])
    skewness = ((m - n) * (total - 2 * k) / (total * np.maximum(total - 2, 1)))[large] / root_variance
    log_p[large] = two_sided_log_p(_pearson_z((x - mean)[large] / root_variance, skewness))
    exact = ~large & (variance > 0)
    # Mirrored to misses where needed, so that what was seen never lies below the mean.
    lower = x < mean
    x, k = np.where(lower, n - x, x), np.where(lower, total - k, k)
    few = exact & (variance <= FEW_TERMS_VARIANCE)
    for part in (few, exact & ~few):
        if part.any():
            terms = np.arange(int(9 * math.sqrt(float(variance[part].max()))) + 25)
            log_p[part] = _less_likely(x[part], k[part], n[part], m[part], terms)
    return log_p


def beyond_log_p(hits: Floats, once: Floats, n: Numbers, m: Numbers) -> Floats:
    """The logarithm of the one-sided mid-p of ``hits`` among ``n`` rows beyond what ``m`` other rows reached.

    Let the m rows have ``once`` values that only one of them has, or ends that only one of them reaches. At least
    ``hits`` rows go beyond them when no more than ``once`` of that many rows together are of the m (negative
    hypergeometric; exact for the two ends of a range, with ``once=1``; for values it is Good's 1953 estimate).

    >>> np.exp(beyond_log_p(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 10, 10)).round(3)
    array([0.882, 0.632])
    """
    hits, once = np.rint(hits), np.rint(once)
    n, m = np.maximum(np.rint(n), hits + 1), np.maximum(np.rint(m), once)
    baseline = np.arange(int(once.max()) + 1)
    at_least = []
    for reached in (hits, hits + 1):
        k = (reached + once)[:, None]
        log_pmf = _log_pmf(k - np.minimum(baseline, once[:, None]), k, n[:, None], m[:, None])
        at_least.append(logsumexp(np.where(baseline <= once[:, None], log_pmf, -np.inf), axis=1))
    return np.asarray(np.minimum(0.0, np.logaddexp(*at_least) - math.log(2)), dtype=np.float64)


def _less_likely(x: Floats, k: Floats, n: Floats, m: Floats, terms: NDArray[np.int64]) -> Floats:
    """For ``x`` at or above the mean: the tail beyond it, and the tail below the mode of what is less likely."""
    rest = m - k
    log_seen = _log_pmf(x, k, n, m)
    i = x[:, None] + terms
    up = (k[:, None] - i) * (n[:, None] - i) / ((i + 1) * (rest[:, None] + i + 1))
    beyond = 0.5 + np.cumprod(np.maximum(up, 0.0), axis=1).sum(axis=1)
    start = np.minimum(x - 1, np.floor((n + 1) * (k + 1) / (n + m + 2)))
    i = start[:, None] - terms[:-1]
    down = i * (rest[:, None] + i) / ((k[:, None] - i + 1) * (n[:, None] - i + 1))
    ratios = np.cumprod(np.column_stack([np.ones(len(x)), np.where(i > 0, np.maximum(down, 0.0), 0.0)]), axis=1)
    # In units of the probability of what was seen, which may be too small for a float; so may be what is below.
    below = np.exp(np.minimum(_log_pmf(start, k, n, m) - log_seen, -math.log(TINY)))[:, None] * ratios
    weights = 0.5 * (below <= 1 + SAME) + 0.5 * (below < 1 - SAME)
    return np.asarray(
        np.minimum(0.0, log_seen + np.log(beyond + np.where(weights > 0, weights * below, 0.0).sum(axis=1))),
        dtype=np.float64,
    )


def _log_pmf(x: Floats, k: Floats, n: Floats, m: Floats) -> Floats:
    total = n + m
    return np.asarray(
        (gammaln(k + 1) - gammaln(x + 1) - gammaln(k - x + 1))
        + (gammaln(total - k + 1) - gammaln(n - x + 1) - gammaln(m - k + x + 1))
        - (gammaln(total + 1) - gammaln(n + 1) - gammaln(m + 1)),
        dtype=np.float64,
    )


def sum_z(sums: Floats, third_moments: Floats, n: Floats, m: Floats) -> Floats:
    """The normal score of the sum over ``n`` rows of a score that has mean 0 and variance 1 over all ``n + m`` rows.

    The tail is that of a Pearson type III distribution with the exact mean, variance and skewness of the sum over
    random subsets (Mielke and Berry 2007), so it stays right for skewed scores and sides of different size.

    third_moments
        Mean cube of each score over all rows.

    >>> one = np.ones(1)
    >>> sum_z(19.6 * (900 / 999) ** 0.5 * one, 0.0 * one, 100 * one, 900 * one).round(3)
    array([1.96])
    """
    total = np.maximum(n + m, 3)
    root_variance = np.sqrt(n * m / (total - 1))
    return _pearson_z(sums / root_variance, (m - n) / (total - 2) * third_moments / root_variance)


def _pearson_z(standardised: Floats, skewness: Floats) -> Floats:
    """Made normal by the cube root (Wilson and Hilferty 1931); p-values are at most some percent too large."""
    skewed = np.abs(skewness) > SMALLEST_SKEWNESS
    root = 2 / np.where(skewed, skewness, 1.0)
    cubed = 3 * root * (np.cbrt(1 + standardised / root) - 1 + 1 / (9 * root**2))
    return np.where(skewed, cubed, standardised)


def chi_square_log_p(statistics: Floats, degrees: NDArray[np.int64]) -> Floats:
    """The natural logarithm of the one-sided p-value of chi-square statistics, also where that p is too small.

    >>> np.exp(chi_square_log_p(np.array([3.841459]), np.array([1]))).round(6)
    array([0.05])
    """
    a, x = degrees / 2, statistics / 2
    upper = gammaincc(a, x)
    # Two steps of Legendre's continued fraction, which are plenty far out.
    beyond = np.maximum(x, a + 1)
    far = a * np.log(beyond) - beyond - gammaln(a) - np.log(beyond + 1 - a + (a - 1) / (beyond + 3 - a))
    near = np.where(upper > 0.5, np.log1p(-np.minimum(gammainc(a, x), 0.5)), np.log(np.maximum(upper, TINY)))
    return np.asarray(np.where(upper > TINY, near, far), dtype=np.float64)


def two_sided_log_p(z: Floats) -> Floats:
    """The natural logarithm of the two-sided p-value of normal scores.

    >>> np.exp(two_sided_log_p(np.array([-1.96]))).round(3)
    array([0.05])
    """
    return np.asarray(math.log(2) + log_ndtr(-np.abs(z)), dtype=np.float64)


def two_sided_z(log_p: Floats) -> Floats:
    """The size of the normal score with the two-sided p-value ``exp(log_p)``.

    >>> two_sided_z(np.array([math.log(0.05), -10_000.0])).round(2)
    array([  1.96, 141.38])
    """
    return np.asarray(np.maximum(0.0, -ndtri_exp(log_p - math.log(2))), dtype=np.float64)


def one_sided_z(log_p: Floats) -> Floats:
    """The normal score with the one-sided p-value ``exp(log_p)``: negative above one half, never infinite.

    >>> one_sided_z(np.array([math.log(0.05), 0.0])).round(1)
    array([ 1.6, -8.2])
    """
    return np.asarray(-ndtri_exp(np.minimum(log_p, LEAST_CERTAIN)), dtype=np.float64)
