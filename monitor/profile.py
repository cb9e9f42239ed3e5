"""Predictions to profiles: counts over the layout's cells per version, server, role, segment, minute and weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.layout import Layout
from monitor.columns import PredictionColumns, lists
from monitor.config import ModelSpec
from monitor.folding import mark
from monitor.registry import Model
from monitor.store import Store

BASE = "base"
DENSE_CELLS_PER_ROW = 8
"""Counting into a dense table is faster until it is mostly empty."""

PROFILE_TYPES = pl.Schema(
    [
        ("version", pl.String),
        ("server", pl.String),
        ("role", pl.String),
        ("segment", pl.String),
        ("minute", pl.Datetime("ms", "UTC")),
        ("weight", pl.Float64),
        ("origin", pl.Int64),
        ("n", pl.UInt64),
        ("failed", pl.UInt64),
        ("undeclared", pl.UInt64),
        ("cells", pl.List(pl.UInt32)),
        ("counts", pl.List(pl.UInt32)),
    ]
)


@dataclass
class _Sparse:
    """Cells that are not zero, gathered feature by feature."""

    groups: list[NDArray[np.int64]] = field(default_factory=list)
    cells: list[NDArray[np.int64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)

    def per_group(self, groups: int) -> tuple[pl.Series, pl.Series]:
        """A list of cells and a list of counts for each group."""
        if not self.groups:
            none = lists(np.zeros(groups + 1, np.int64), np.empty(0, np.uint32))
            return none, none
        group, cell, count = (np.concatenate(x) for x in (self.groups, self.cells, self.counts))
        order = np.argsort(group, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))])
        return lists(offsets, cell[order].astype(np.uint32)), lists(offsets, count[order].astype(np.uint32))


@dataclass(frozen=True)
class _Groups:
    """Rows that are counted together: the distinct keys, and for each of ``rows`` the number of its key."""

    keys: dict[str, pl.Series]
    of_row: NDArray[np.int64]
    rows: NDArray[np.int64]


def profile_rows(columns: PredictionColumns, spec: ModelSpec, layout: Layout | None) -> pl.DataFrame:
    """The profile rows of some predictions. Without a layout they hold only how many rows there were.

    A row counts once under segment ``''`` and once under each declared segment that it names. Rows of several batches
    are told apart by their ``origin``, which comes back as a column.
    """
    size = len(columns)
    keys = {
        "version": columns.texts["version"],
        "server": columns.texts["server"],
        "role": columns.texts["role"],
        "segment": pl.Series([""]).new_from_index(0, size),
        "minute": pl.Series((columns.at // 60).astype(np.int64) * 60_000),
        "weight": pl.Series(columns.weight),
        "origin": pl.Series(columns.origin),
    }
    base = _groups(keys, np.arange(size))
    segmented = (_segment_groups(base, columns.segments[name]) for name in spec.segments)
    cells = (
        [
            (layout.spans[f.name], f.cells(columns.features[f.name]))
            for f in layout.features
            if f.name in columns.features
        ]
        if layout
        else []
    )
    return pl.concat([_frame(columns, groups, cells) for groups in (base, *segmented) if len(groups.rows)])


def write_profiles(store: Store, model: Model, profiles: pl.DataFrame) -> None:
    """Write profile rows that know their source and batch."""
    layout_id = model.layout.id if model.layout else ""
    named = profiles.with_columns(
        environment=pl.lit(model.environment), model=pl.lit(model.name), layout_id=pl.lit(layout_id)
    )
    store.insert("profile_batches", named)
    mark(store, named)


def _groups(keys: dict[str, pl.Series], rows: NDArray[np.int64]) -> _Groups:
    of_row = np.zeros(len(rows), np.int64)
    first = np.zeros(min(len(rows), 1), np.int64)
    for values in keys.values():
        plain = _codes(values)
        if len(plain) and (plain != plain[0]).any():
            distinct, code = np.unique(plain, return_inverse=True)
            _, first, of_row = np.unique(of_row * len(distinct) + code, return_index=True, return_inverse=True)
    return _Groups({name: values[first] for name, values in keys.items()}, of_row, rows)


def _codes(values: pl.Series) -> NDArray[Any]:
    """Numbers that are equal where the values are."""
    if values.dtype != pl.String:
        return values.to_numpy()
    codes: NDArray[Any] = values.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode().indices.to_numpy()
    return codes


def _segment_groups(base: _Groups, values: pl.Series) -> _Groups:
    rows = values.is_not_null().arg_true().to_numpy().astype(np.int64)
    split = _groups({BASE: pl.Series(base.of_row[rows]), "segment": values.drop_nulls()}, rows)
    whole = {name: values[split.keys[BASE].to_numpy()] for name, values in base.keys.items()}
    return _Groups({**whole, "segment": split.keys["segment"]}, split.of_row, rows)


def _frame(
    columns: PredictionColumns, groups: _Groups, cells: Sequence[tuple[slice, NDArray[np.int32]]]
) -> pl.DataFrame:
    size = len(groups.keys["version"])
    sparse = _Sparse()
    for span, of_row in cells:
        width = span.stop - span.start
        keys = groups.of_row * width + (of_row if len(groups.rows) == len(columns) else of_row[groups.rows])
        if size * width <= DENSE_CELLS_PER_ROW * len(keys) + 4096:
            table = np.bincount(keys, minlength=size * width)
            found = np.flatnonzero(table)
            counts = table[found]
        else:
            found, counts = np.unique(keys, return_counts=True)
        sparse.groups.append(found // width)
        sparse.cells.append(found % width + span.start)
        sparse.counts.append(counts)
    cell_lists, count_lists = sparse.per_group(size)
    return pl.DataFrame(
        {
            **groups.keys,
            "minute": groups.keys["minute"].cast(PROFILE_TYPES["minute"]),
            "n": np.bincount(groups.of_row, minlength=size).astype(np.uint64),
            "failed": np.bincount(groups.of_row, columns.failed[groups.rows], size).astype(np.uint64),
            "undeclared": np.bincount(groups.of_row, columns.undeclared[groups.rows], size).astype(np.uint64),
            "cells": cell_lists,
            "counts": count_lists,
        }
    )
