"""Two tables compared column by column, as ``telltale.compare`` and ``telltale compare`` do.

The cells of a column come from the rows of both tables together. So dealing the rows out anew changes the counts by
chance alone, which is what the p-values assume; there is no split, and the order of the rows has no influence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from detectors.drift import SHARE_TOLERANCE, drift_findings
from detectors.finding import Finding, Status, Subject, Window
from detectors.layout import Counts, Layout
from detectors.multiplicity import holm
from detectors.pooled import NOTHING, PooledCounts, holds, pooled_counts
from detectors.report import ONLY_IN_CURRENT, ONLY_IN_REFERENCE, SCHEMA, Report

MINIMUM_ROWS = 200
ALL_ROWS = Window("", "", datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""A table has no environment, model or time."""
DETECTOR = "drift"
BASELINE = "reference"


def compare_frames(
    reference: pl.DataFrame, current: pl.DataFrame, false_alarms: float = 0.05, minimum_rows: int = MINIMUM_ROWS
) -> Report:
    """Which columns of two tables differ by more than chance.

    With ``false_alarms=0.05``, two random parts of one table show any drifted column in at most 5 % of cases,
    whatever the number of columns and their dependence (Holm). That needs rows that are independent of each other. A
    change in how columns go together is not seen, and of text only the 50 most frequent values are seen one by one.

    Numbers, dates and times are compared as ordered values, text and booleans as levels. A column that is in only one
    table, or holds another kind of value in each, is drifted with component ``schema``. Nested and binary columns are
    not judged, as their finding says.

    Raises ValueError unless ``0 < false_alarms < 1``.

    >>> before = pl.DataFrame({"size": range(1000), "colour": ["red", "blue"] * 500})
    >>> after = before.with_columns(pl.col("size") + 150)
    >>> compare_frames(before, after).drifted
    ('size',)
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms is {false_alarms}; it is a probability between 0 and 1, such as 0.05")
    untested = []
    counted: list[PooledCounts] = []
    for name in dict.fromkeys((*reference.columns, *current.columns)):
        problem = _problem(name, reference, current)
        if problem:
            untested.append(problem)
        else:
            counted.append(pooled_counts(name, reference[name], current[name]))
    tested = drift_findings(
        ALL_ROWS,
        Subject(),
        DETECTOR,
        BASELINE,
        Layout(tuple(c.cells for c in counted)),
        _end_to_end([c.baseline for c in counted]),
        _end_to_end([c.current for c in counted]),
        minimum_rows,
    )
    readable = {c.cells.name: c.readable for c in counted}
    tested = [_shown(f, readable[f.subject.feature]) for f in tested]
    p_values = {f.subject.feature: f.p_value for f in tested if f.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    return Report.of([*untested, *tested], adjusted, false_alarms, reference.height, current.height)


def _problem(name: str, reference: pl.DataFrame, current: pl.DataFrame) -> Finding | None:
    """The finding of a column that cannot be counted on both sides."""
    if name not in current.columns:
        return _schema(name, ONLY_IN_REFERENCE)
    if name not in reference.columns:
        return _schema(name, ONLY_IN_CURRENT)
    before, after = holds(reference[name]), holds(current[name])
    if not before or not after:
        dtype = current[name].dtype if before else reference[name].dtype
        message = f"columns of type {dtype} are not compared"
        return Finding(ALL_ROWS, Subject(feature=name), DETECTOR, BASELINE, Status.ERROR, message=message)
    if before != after and NOTHING not in (before, after):
        return _schema(name, f"{before} in the reference, {after} in the current rows")
    return None


def _shown(finding: Finding, readable: Mapping[str, str]) -> Finding:
    cells = tuple(replace(c, cell=readable[c.cell]) for c in finding.contributions)
    return replace(finding, contributions=cells)


def _schema(name: str, message: str) -> Finding:
    """As severe as a change of all rows of a column."""
    return Finding(
        ALL_ROWS,
        Subject(feature=name),
        DETECTOR,
        BASELINE,
        component=SCHEMA,
        severity=1 / SHARE_TOLERANCE,
        message=message,
    )


def _end_to_end(counts: list[Counts]) -> Counts:
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)
