"""Predictions to profiles: counts over the layout's cells per version, server, role, segment, minute and weight."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.layout import Layout
from monitor.columns import PredictionColumns
from monitor.config import ModelSpec
from monitor.folding import mark
from monitor.registry import Model
from monitor.store import Store

Group = tuple[str, str, str, str, int, float, int]
"""Version, server, role, segment, minute (epoch seconds), weight, origin."""
T = TypeVar("T", bound=Hashable)
OTHER = "other"
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

    def per_group(self, groups: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        if not self.groups:
            empty = [np.empty(0, np.int64)] * groups
            return empty, empty
        group, cell, count = (np.concatenate(x) for x in (self.groups, self.cells, self.counts))
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=groups))[:-1]
        return np.split(cell[order], ends), np.split(count[order], ends)


def profile_rows(columns: PredictionColumns, spec: ModelSpec, layout: Layout | None) -> pl.DataFrame:
    """The profile rows of some predictions. Without a layout they hold only how many rows there were.

    A row counts once under segment ``''`` and once under each declared segment that it names. Rows of several batches
    can be told apart by a number that their events carry as ``origin``; it comes back as a column.
    """
    minutes = (columns.at // 60).astype(np.int64) * 60
    keys = zip(
        [e["version"] for e in columns.events],
        [e["server"] for e in columns.events],
        [e.get("role", "live") for e in columns.events],
        minutes.tolist(),
        columns.weight.tolist(),
        [e.get("origin", 0) for e in columns.events],
        strict=True,
    )
    base, base_keys = _numbered(keys)
    parts = [(base, np.arange(len(columns)), [(v, s, r, "", m, w, o) for v, s, r, m, w, o in base_keys])]
    parts += [_segment_groups(columns, base, base_keys, name, values) for name, values in spec.segments.items()]
    cells = (
        [
            (layout.spans[f.name], f.cells(columns.features[f.name]))
            for f in layout.features
            if f.name in columns.features
        ]
        if layout
        else []
    )
    frames = [_frame(columns, ids, rows, groups, cells) for ids, rows, groups in parts if groups]
    return pl.concat(frames)


def write_profiles(store: Store, model: Model, profiles: pl.DataFrame) -> None:
    """Write profile rows that know their source and batch."""
    layout_id = model.layout.id if model.layout else ""
    named = profiles.with_columns(
        environment=pl.lit(model.environment), model=pl.lit(model.name), layout_id=pl.lit(layout_id)
    )
    store.insert("profile_batches", named)
    mark(store, named)


def _numbered(keys: Iterable[T]) -> tuple[NDArray[np.int64], list[T]]:
    numbers: dict[T, int] = {}
    ids = np.array([numbers.setdefault(k, len(numbers)) for k in keys], np.int64)
    return ids, list(numbers)


def _segment_groups(
    columns: PredictionColumns,
    base: NDArray[np.int64],
    base_keys: Sequence[tuple[str, str, str, int, float, int]],
    name: str,
    declared: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Group]]:
    named = [
        (row, e["segments"][name])
        for row, e in enumerate(columns.events)
        if (e.get("segments") or {}).get(name) is not None
    ]
    rows = np.array([row for row, _ in named], np.int64)
    values = [segment_value(name, value, declared) for _, value in named]
    ids, keys = _numbered(zip(base[rows].tolist(), values, strict=True))
    groups = []
    for number, value in keys:
        version, server, role, minute, weight, origin = base_keys[number]
        groups.append((version, server, role, value, minute, weight, origin))
    return ids, rows, groups


def segment_value(name: str, value: object, declared: Sequence[str]) -> str:
    """A segment as it is stored: ``name=value``, or ``name=other`` for a value that is not declared."""
    text = str(value)
    return f"{name}={text if text in declared else OTHER}"


def _frame(
    columns: PredictionColumns,
    ids: NDArray[np.int64],
    rows: NDArray[np.int64],
    groups: Sequence[Group],
    cells: Sequence[tuple[slice, NDArray[np.int32]]],
) -> pl.DataFrame:
    size = len(groups)
    sparse = _Sparse()
    for span, of_row in cells:
        width = span.stop - span.start
        keys = ids * width + of_row[rows]
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
    version, server, role, segment, minute, weight, origin = zip(*groups, strict=True)
    return pl.DataFrame(
        {
            "version": version,
            "server": server,
            "role": role,
            "segment": segment,
            "minute": np.array(minute, np.int64) * 1000,
            "weight": weight,
            "origin": origin,
            "n": np.bincount(ids, minlength=size),
            "failed": np.bincount(ids, weights=columns.failed[rows], minlength=size).astype(np.int64),
            "undeclared": np.bincount(ids, weights=columns.undeclared[rows], minlength=size).astype(np.int64),
            "cells": cell_lists,
            "counts": count_lists,
        }
    ).cast(PROFILE_TYPES)
