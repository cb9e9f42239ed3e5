"""Percentiles of latency from its logarithmic cells."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik

from detectors.finding import Finding, Status, Subject, Window
from detectors.layout import LATENCY_BINS, LATENCY_GROWTH, LATENCY_SMALLEST_MS, Counts, FeatureCells

Floats = NDArray[np.float64]

# In a bin from a to 1.04 a this value has the least relative error at both ends: 0.04 / 2.04 = 1.96 %.
_VALUES = LATENCY_SMALLEST_MS * LATENCY_GROWTH ** np.arange(LATENCY_BINS) * (2 * LATENCY_GROWTH / (1 + LATENCY_GROWTH))


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
    that would need a row beyond the largest is None. ``effects`` has ``p50``, ``p95`` and ``p99`` in ms. It does not
    say whether latency changed. Rows without a usable latency are left out.
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
    return Finding(window, subject, "latency", value=p95, low=low, high=high, n=n, effects=effects)


def _interval_ranks(n: int, q: float) -> tuple[int, int]:
    """Ranks between whose rows the q-quantile lies with at least 95 %; rank 0 or n + 1: there is no such row."""
    lower = math.floor(float(bdtrik(0.025, n, q))) + 1 if (1 - q) ** n <= 0.025 else 0
    upper = math.ceil(float(bdtrik(0.975, n, q))) + 1
    return lower, min(upper, n + 1)


def _at_rank(ranks: NDArray[np.generic], rank: float) -> float:
    return float(_VALUES[min(int(np.searchsorted(ranks, rank)), LATENCY_BINS - 1)])
