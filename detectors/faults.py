"""Faults that change nearly every row of a column: it is stuck at one value, or comes in another unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.layout import FeatureCells

Floats = NDArray[np.float64]

NEARLY_ALL = 0.98
"""Share of the rows with a value that makes it a fault of the whole column."""
CLEARLY = 0.1
"""How much larger than in the baseline the share must be."""
ALIKE = 0.15
"""Total variation between what a unit gives and what is seen, up to which it may be that unit."""
FAR = 0.4
"""Total variation from the baseline that no mere shift of a part of the rows gives."""
UNITS = ((1000.0, 0.0), (0.001, 0.0), (100.0, 0.0), (0.01, 0.0), (1.8, 32.0), (1 / 1.8, -32 / 1.8))
"""Common slips, as factor and offset: thousands, per cent, degrees Celsius and Fahrenheit."""


def fault(cells: FeatureCells, baseline: Floats, current: Floats) -> str:
    """``stuck``, ``units``, or empty when it is neither. It says what a change looks like, not that there is one.

    stuck
        Nearly all rows with a value are in one cell, which had clearly fewer before. Of a column of many values a cell
        is one bin, about a thirty-second of the usual rows, so a unit that makes all values tiny looks stuck, too.
    units
        A numeric column is as if every value had gone through one of UNITS, and far from what it was. Where nearly
        all rows leave the range by one side, counts cannot tell a unit from any other new value: that is ``unseen``.

    >>> from detectors.layout import Kind
    >>> colour = FeatureCells("colour", Kind.CATEGORICAL, levels=("red", "blue"))
    >>> fault(colour, np.array([600, 400, 0, 0, 0, 0]), np.array([500, 0, 0, 0, 9, 0]))
    'stuck'
    """
    r, c = baseline[: cells.valued], current[: cells.valued]
    if not r.any() or not c.any():
        return ""
    q, p = r / r.sum(), c / c.sum()
    top = int(p.argmax())
    outside = top in cells.unseen
    if not outside and p[top] >= NEARLY_ALL and p[top] - q[top] >= CLEARLY:
        return "stuck"
    return "units" if cells.edges and not (outside and p[top] >= NEARLY_ALL) and _in_other_unit(cells, q, p) else ""


def _in_other_unit(cells: FeatureCells, q: Floats, p: Floats) -> bool:
    if _variation(p, q) < FAR:
        return False
    return any(_variation(p, _mapped(cells, q, *unit)) <= ALIKE for unit in UNITS)


def _mapped(cells: FeatureCells, q: Floats, factor: float, offset: float) -> Floats:
    """The baseline's shares of the cells, had every value been multiplied by a positive factor and moved."""
    edges = np.array(cells.edges)
    with np.errstate(over="ignore"):  # then it is beyond all edges
        source = (edges - offset) / factor
    below = np.interp(source, edges, np.cumsum(q)[:-1], left=0.0, right=1.0)
    return np.diff(below, prepend=0.0, append=1.0)


def _variation(p: Floats, q: Floats) -> float:
    return float(np.abs(p - q).sum()) / 2
