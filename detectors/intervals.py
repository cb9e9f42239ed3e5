"""Intervals that several detectors share."""

from __future__ import annotations

import math

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
