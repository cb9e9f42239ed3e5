"""The cells of one column from the rows of two tables together, and the counts of each table in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.layout import Column, Counts, FeatureCells, categorical_cells, numeric_cells

Floats = NDArray[np.float64]

NOTHING = "no values"
LEVELS = ("text", "booleans")
TICKS_PER_SECOND = {"ms": 1e3, "us": 1e6, "ns": 1e9}

EDGE_ROWS = 20_000
"""About as many values give the edges of a long column: a bin then holds 1/32 of the rows, give or take 4 %."""
LEAST_DISTINCT = 0.9
"""Share of different values below which a sample by value is not one of rows, and all rows give the edges."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ROWS_AT_ONCE = 1 << 15


class PooledCounts(NamedTuple):
    """One column of two tables."""

    cells: FeatureCells
    kind: str
    """What it holds; see ``holds``."""
    baseline: Counts
    current: Counts

    @property
    def readable(self) -> Mapping[str, str]:
        """For each label of a cell one that shows times as such."""
        written = {"dates": _as_dates, "times of day": _as_times_of_day}.get(self.kind)
        labels = self.cells.labels
        return dict(zip(labels, labels if written is None else self.cells.labelled(written), strict=True))


def _as_dates(seconds: Floats) -> list[str]:
    return _as_times(seconds, "D", "s", "ms")


def _as_times_of_day(seconds: Floats) -> list[str]:
    return [text[-len("00:00:00.000") :] for text in _as_times(seconds, "ms")]


def _as_times(seconds: Floats, *units: str) -> list[str]:
    """In UTC, in the first of the units that tells them apart."""
    exactly = np.rint(seconds * 1e3).astype(np.int64).astype("datetime64[ms]")
    for unit in units:
        texts = [str(at).replace("T", " ") for at in exactly.astype(f"datetime64[{unit}]")]
        if len({*texts}) == len(texts):
            break
    return texts


def holds(values: pl.Series) -> str:
    """What a column holds, in words; empty for a kind that is not compared.

    >>> holds(pl.Series([1, None])), holds(pl.Series([None])), holds(pl.Series([[1, 2]]))
    ('numbers', 'no values', '')
    """
    kind = values.dtype.base_type()
    if kind.is_nested() or kind in (pl.Object, pl.Binary) or issubclass(kind, pl.BaseExtension):
        return ""
    if values.null_count() == len(values):
        return NOTHING
    if kind.is_numeric():
        return "numbers"
    named = {
        pl.Boolean: "booleans",
        pl.Date: "dates",
        pl.Datetime: "dates",
        pl.Duration: "durations",
        pl.Time: "times of day",
    }
    return named.get(kind, "text")


def pooled_counts(name: str, baseline: pl.Series, current: pl.Series) -> PooledCounts:
    """The counts of two columns that hold the same kind of value, or of which one holds nothing; else as levels.

    Neither the cells nor the counts depend on the order of the rows, and the cells do not depend on which table a row
    is in.

    >>> pooled_counts("x", pl.Series([1.0, 1.0]), pl.Series([1.0, 2.0, None])).current
    array([0, 1, 1, 0, 0, 1, 0, 0])
    """
    kinds = [kind for kind in map(holds, (baseline, current)) if kind != NOTHING]
    kind = min(kinds, key=lambda kind: kind not in LEVELS, default=NOTHING)
    if kind in LEVELS:
        texts = [Column.of(values.cast(pl.String)) for values in (baseline, current)]
        cells = categorical_cells(name, pl.concat([text.values.alias(name) for text in texts]))
        return PooledCounts(cells, kind, *(_counts_by_row(cells, text) for text in texts))
    numbers = [_numbers(values) for values in (baseline, current)]
    finite = [column.values.drop_nulls().to_numpy() for column in numbers]
    cells = numeric_cells(name, pl.Series(_edge_values(finite)))
    if cells.points:
        return PooledCounts(cells, kind, *(_counts_by_row(cells, column) for column in numbers))
    counts = (_counts_by_edge(cells, column, values) for column, values in zip(numbers, finite, strict=True))
    return PooledCounts(cells, kind, *counts)


def _numbers(values: pl.Series) -> Column:
    """Numbers as they are, times as seconds."""
    dtype = values.dtype
    if values.null_count() == len(values):
        return Column.of(pl.repeat(None, len(values), dtype=pl.Float64, eager=True))
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return Column.of(values.to_physical() / TICKS_PER_SECOND[dtype.time_unit])
    if dtype == pl.Time:
        return Column.of(values.to_physical() / TICKS_PER_SECOND["ns"])
    if dtype == pl.Date:
        return Column.of(values.to_physical() * 86_400.0)
    return Column.of(values)


def _edge_values(finite: list[Floats]) -> Floats:
    """The values whose quantiles become edges: all, or of a long column those whose bits hash low, and both ends.

    Which values these are depends on the values alone, so the edges are the same however the rows are dealt out.
    """
    rows = sum(len(values) for values in finite)
    if rows > 4 * EDGE_ROWS:
        limit = np.uint64(2**64 * (EDGE_ROWS / rows))
        sample = np.concatenate([values[values.view(np.uint64) * GOLDEN < limit] for values in finite])
        if len(sample) > EDGE_ROWS / 2 and len(np.unique(sample)) > LEAST_DISTINCT * len(sample):
            ends = [end(values) for values in finite if len(values) for end in (np.min, np.max)]
            return np.concatenate([sample, ends])
    return np.concatenate(finite)


def _counts_by_row(cells: FeatureCells, column: Column) -> Counts:
    return np.bincount(cells.cells(column), minlength=cells.size)


def _counts_by_edge(cells: FeatureCells, column: Column, finite: Floats) -> Counts:
    """The same counts, without the cell of each row: comparing with every edge is five times as fast as searching."""
    below = np.zeros(len(cells.edges), np.int64)
    for start in range(0, len(finite), ROWS_AT_ONCE):
        part = finite[start : start + ROWS_AT_ONCE]
        below += [np.count_nonzero(part < edge) for edge in cells.edges]
    counts = np.zeros(cells.size, np.int64)
    counts[: cells.valued] = np.diff(below, prepend=0, append=len(finite))
    counts[cells.state("not_finite")] = len(column.not_finite)
    counts[cells.state("missing")] = column.values.null_count() - len(column.not_finite)
    return counts
