"""Intervals that several detectors share."""

from __future__ import annotations

import math

from scipy.special import betainc

Z95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson(hits: float, total: float) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927): never outside [0, 1], usable at 0 and 1.

    Coverage is right on average over shares, not guaranteed for each. Raises ValueError without rows.

    >>> low, high = wilson(10, 100)
    >>> f"{low:.4f} {high:.4f}"
    '0.0552 0.1744'
    """
    if total <= 0:
        raise ValueError(f"a share of {total} rows has no interval")
    share = hits / total
    spread = Z95 * Z95 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def above(hits: float, total: float, limit: float) -> float:
    """One-sided p-value of "the true share is at most ``limit``": the upper tail of the binomial.

    Exact for whole numbers; between them, as effective numbers of weighted rows are, its continuous form. Rows are
    taken as independent: a short burst in which all of them fail looks surer than it is.

    >>> above(3, 3, 0.5), above(0, 60, 0.5)
    (0.125, 1.0)
    """
    return float(betainc(hits, total - hits + 1, limit)) if hits > 0 else 1.0
