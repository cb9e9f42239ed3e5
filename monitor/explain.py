"""Rows behind a finding: one feature of a model in a span, beside the same feature of what it is compared with."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from detectors.drilldown import DrilldownError, explain
from monitor.config import ReferenceSpec
from monitor.reference import read_table

Export = Callable[[datetime, datetime], bytes]
"""The kept feature rows of the model in a span, as Parquet."""


def explain_feature(
    export: Export, feature: str, start: datetime, end: datetime, against: ReferenceSpec, test: str = ""
) -> dict[str, Any]:
    """What ``detectors.drilldown.explain`` says of the kept rows, as JSON types.

    Where rows are sampled, it is the sample that is tested. Raises DrilldownError, and TableError for a file.
    """
    current = _column(pl.read_parquet(io.BytesIO(export(start, end))), feature, "the kept rows of the span")
    if against.window is not None:
        rows = pl.read_parquet(io.BytesIO(export(against.window.start, against.window.end)))
        name = f"{against.window.start.isoformat()}..{against.window.end.isoformat()}"
    else:
        rows, name = read_table(Path(against.file or "")), str(against.file)
    found = explain(_column(rows, feature, name), current, test)
    return {"feature": feature, "from": start.isoformat(), "to": end.isoformat(), "against": name, **asdict(found)}


def _column(rows: pl.DataFrame, feature: str, where: str) -> pl.Series:
    if rows.is_empty():
        raise DrilldownError(f"there are no rows in {where}")
    if feature not in rows.columns:
        raise DrilldownError(f"there is no feature {feature!r} in {where}; there are {', '.join(rows.columns)}")
    values = rows[feature]
    return values.fill_nan(None) if values.dtype.is_float() else values
