"""Predictions to profiles: counts over the layout's cells per version, server, role, segment, minute and weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitor.columns import NONE, PredictionColumns, lists, milliseconds
from monitor.folding import mark
from monitor.registry import Model
from monitor.store import Store

MINUTE_MS = 60_000
BASE = "base"
DENSE_CELLS_PER_VALUE = 8
"""Counting into a dense table is faster until it is mostly empty."""
Part = tuple[Model, PredictionColumns]
"""Predictions of one model."""


@dataclass(frozen=True)
class _Groups:
    """Rows that are counted together: the distinct keys, and for each of ``rows`` the number of its key.

    Rows and groups come part by part.
    """

    keys: dict[str, pl.Series]
    of_row: NDArray[np.int64]
    rows: NDArray[np.int64]


def profile_rows(parts: Sequence[Part]) -> pl.DataFrame:
    """The profile rows of some predictions. Without a layout they hold only how many rows there were.

    A row counts once under segment ``''`` and once under each declared segment that it names. Rows of several batches
    are told apart by their ``origin``, which comes back as a column.
    """
    columns = [c for _, c in parts]
    at = np.concatenate([c.at for c in columns])
    keys = {
        "part": pl.Series(np.repeat(np.arange(len(parts)), [len(c) for c in columns])),
        **{name: pl.concat([c.texts[name] for c in columns]) for name in ("version", "server", "role")},
        "segment": pl.Series([""]).new_from_index(0, len(at)),
        "minute": pl.Series(milliseconds(at) // MINUTE_MS * MINUTE_MS),
        "weight": pl.Series(np.concatenate([c.weight for c in columns])),
        "origin": pl.Series(np.concatenate([c.origin for c in columns])),
    }
    base = _groups(keys, np.arange(len(at)))
    segmented = _segment_groups(base, parts)
    cells = [_cells(model, c) for model, c in parts]
    return pl.concat([_frame(parts, groups, cells) for groups in (base, segmented) if len(groups.rows)])


def write_profiles(store: Store, profiles: pl.DataFrame) -> None:
    """Write profile rows that know their source and batch."""
    mark(store, profiles)  # should nothing come after the profiles, no sum that lacks them holds
    store.insert("profile_batches", profiles)
    mark(store, profiles)


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


def _segment_groups(base: _Groups, parts: Sequence[Part]) -> _Groups:
    starts = _starts([len(c) for _, c in parts])
    rows, texts = [NONE], [pl.Series([], dtype=pl.String)]
    for start, (model, columns) in zip(starts[:-1].tolist(), parts, strict=True):
        for name in model.spec.segments:
            values = columns.segments[name]
            rows.append(start + values.is_not_null().to_numpy().nonzero()[0])
            texts.append(values.drop_nulls())
    of_row = np.concatenate(rows)
    split = _groups({BASE: pl.Series(base.of_row[of_row]), "segment": pl.concat(texts)}, of_row)
    whole = {name: values[split.keys[BASE].to_numpy()] for name, values in base.keys.items()}
    return _Groups({**whole, "segment": split.keys["segment"]}, split.of_row, of_row)


def _cells(model: Model, columns: PredictionColumns) -> NDArray[np.int32]:
    """The place in the layout's vector of each row's value of each feature: features x rows."""
    layout = model.layout
    if layout is None:
        return np.empty((0, len(columns)), np.int32)
    found = [f for f in layout.features if f.name in columns.features]
    cells = np.empty((len(found), len(columns)), np.int32)
    for number, feature in enumerate(found):
        cells[number] = feature.cells(columns.features[feature.name])
        cells[number] += layout.spans[feature.name].start
    return cells


def _frame(parts: Sequence[Part], groups: _Groups, cells: Sequence[NDArray[np.int32]]) -> pl.DataFrame:
    columns = [c for _, c in parts]
    models = [m for m, _ in parts]
    part = groups.keys["part"].to_numpy()
    ends = np.arange(len(parts) + 1)
    first_row = _starts([len(c) for c in columns])
    first_group = np.searchsorted(part, ends)
    first_grouped = np.searchsorted(part[groups.of_row], ends)
    counted = []
    for i, of_part in enumerate(cells):
        here = slice(first_grouped[i], first_grouped[i + 1])
        layout = models[i].layout
        counted.append(
            _count(
                groups.of_row[here] - first_group[i],
                int(first_group[i + 1] - first_group[i]),
                of_part[:, groups.rows[here] - first_row[i]],
                layout.size if layout else 1,
            )
        )
    filled, places, counts = (np.concatenate(x) for x in zip(*counted, strict=True))
    size = len(part)
    failed = np.concatenate([c.failed for c in columns])[groups.rows]
    undeclared = np.concatenate([c.undeclared for c in columns])[groups.rows]
    return pl.DataFrame(
        {
            "environment": pl.Series([m.environment for m in models])[part],
            "model": pl.Series([m.name for m in models])[part],
            "layout_id": pl.Series([m.layout.id if m.layout else "" for m in models])[part],
            **{name: values for name, values in groups.keys.items() if name != "part"},
            "minute": groups.keys["minute"].cast(pl.Datetime("ms", "UTC")),
            "n": np.bincount(groups.of_row, minlength=size).astype(np.uint64),
            "failed": np.bincount(groups.of_row, failed, size).astype(np.uint64),
            "undeclared": np.bincount(groups.of_row, undeclared, size).astype(np.uint64),
            "cells": lists(_starts(filled), places.astype(np.uint32)),
            "counts": lists(_starts(filled), counts.astype(np.uint32)),
        }
    )


def _count(
    groups: NDArray[np.int64], size: int, cells: NDArray[np.int32], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many cells of each group are not zero, which ones, group by group, and what they count."""
    keys = (groups * width + cells).ravel()
    if size * width <= DENSE_CELLS_PER_VALUE * len(keys) + 4096:
        table = np.bincount(keys, minlength=size * width)
        found = np.flatnonzero(table)
        counts = table[found]
    else:
        found, counts = np.unique(keys, return_counts=True)
    return np.bincount(found // width, minlength=size), found % width, counts


def _starts(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of some runs begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
