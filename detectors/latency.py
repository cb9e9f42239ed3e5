"""Percentiles of latency from its logarithmic cells."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, betainc

from detectors.finding import Finding, Status, Subject, Window
from detectors.layout import LATENCY_BINS, LATENCY_GROWTH, LATENCY_SMALLEST_MS, Counts, FeatureCells

Floats = NDArray[np.float64]
LEVELS = tuple(10.0**-power for power in range(1, 13))
"""Chances of being wrong for which it is kept what the 95th percentile is surely above."""

_LOWER_ENDS = LATENCY_SMALLEST_MS * LATENCY_GROWTH ** np.arange(LATENCY_BINS)
# In a bin from a to 1.04 a this value has the least relative error at both ends: 0.04 / 2.04 = 1.96 %.
_VALUES = _LOWER_ENDS * (2 * LATENCY_GROWTH / (1 + LATENCY_GROWTH))


def percentile(counts: Counts | Floats, q: float) -> float | None:
    """The latency in ms that a share ``q`` of the rows stays at or below; None without rows.

    ``counts`` are latency cells; the states after the bins are left out. Within 2 % of the row at rank
    ``ceil(q * rows)``, from 0.01 ms to 46 hours; beyond that the nearest end is given.
    """
    bins = counts[:LATENCY_BINS]
    rows = float(bins.sum())
    return _at_rank(np.cumsum(bins), math.ceil(q * rows)) if rows else None


def latency_finding(
    window: Window, subject: Subject, cells: FeatureCells, counts: Counts, minimum_rows: int
) -> Finding:
    """Detector ``latency``: ``value`` is the 95th percentile in ms, with a 95 % interval from order statistics.

    The interval (David and Nagaraja 2003, 7.1) assumes independent rows and nothing about the distribution; an end
    that would need a row beyond the largest is None. ``effects`` has ``p50``, ``p95`` and ``p99`` in ms, and for
    each of ``LEVELS`` what the true 95th percentile is above, but for that chance (``above_1e-03``): see
    ``slower_than``. It does not say whether latency changed. Rows without a usable latency are left out.
    """
    bins = counts[: cells.ordered]
    ranks = np.cumsum(bins)
    n = round(float(bins.sum()))
    p95 = percentile(bins, 0.95)
    named = {"p50": percentile(bins, 0.5), "p95": p95, "p99": percentile(bins, 0.99)}
    effects = {name: value for name, value in named.items() if value is not None}
    if n < max(minimum_rows, 1):
        message = f"{n} rows have a latency; {minimum_rows} are needed"
        status = Status.NOT_ENOUGH_DATA
        return Finding(window, subject, "latency", status=status, value=p95, n=n, effects=effects, message=message)
    lower, upper = _interval_ranks(n, 0.95)
    low = _at_rank(ranks, lower) if lower else None
    high = _at_rank(ranks, upper) if upper <= n else None
    effects |= _lower_bounds(bins)
    return Finding(window, subject, "latency", value=p95, low=low, high=high, n=n, effects=effects)


def slower_than(effects: Mapping[str, float], limit: float) -> float:
    """One-sided p-value of "the 95th percentile is at most ``limit`` ms", from the effects of a finding of ``latency``.

    Where it is the limit, the rows above are binomial with a share of 0.05. Rounded up to one of ``LEVELS``, else 1; a
    limit inside a cell counts as the cell's upper end. Rows are taken as independent: a slow minute in which all of
    them are slow looks surer than it is.

    >>> slower_than({"above_1e-01": 104.0, "above_1e-02": 96.0}, 100.0)
    0.1
    """
    return min((level for level in LEVELS if effects.get(_bound(level), 0.0) >= limit), default=1.0)


def _lower_bounds(bins: Counts | Floats) -> dict[str, float]:
    """By level the highest lower end of a cell which so many rows are above that it is no chance."""
    above = np.cumsum(bins[::-1])[::-1]
    n = float(above[0])
    first, last = int(np.argmax(bins > 0)), int(np.count_nonzero(above > 0.05 * n))
    chances = betainc(above[first:last], n - above[first:last] + 1, 0.05)
    cells = zip(LEVELS, np.searchsorted(chances, LEVELS, side="right"), strict=True)
    return {_bound(level): float(_LOWER_ENDS[first + count - 1]) for level, count in cells if count}


def _bound(level: float) -> str:
    return f"above_{level:.0e}"


def _interval_ranks(n: int, q: float) -> tuple[int, int]:
    """Ranks between whose rows the q-quantile lies with at least 95 %; rank 0 or n + 1: there is no such row."""
    lower = math.floor(float(bdtrik(0.025, n, q))) + 1 if (1 - q) ** n <= 0.025 else 0
    upper = math.ceil(float(bdtrik(0.975, n, q))) + 1
    return lower, min(upper, n + 1)


def _at_rank(ranks: NDArray[np.generic], rank: float) -> float:
    return float(_VALUES[min(int(np.searchsorted(ranks, rank)), LATENCY_BINS - 1)])
