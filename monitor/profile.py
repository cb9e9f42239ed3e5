"""Predictions to profiles: counts over the layout's cells per version, server, role, segment, minute and weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitor.columns import NONE, PredictionColumns, lists, milliseconds
from monitor.folding import mark
from monitor.registry import Model
from monitor.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MINUTE_MS = 60_000
BASE = "base"
DENSE_CELLS_PER_VALUE = 8
"""Counting into a dense table is faster until it is mostly empty."""
Part = tuple[Model, PredictionColumns]
"""Predictions of one model."""
_Cells = list[tuple[slice, NDArray[np.int32]]]
"""Of each feature where its cells stand in the layout's vector, and in which of them each row is."""


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
        "minute": pl.Series(milliseconds(at) // MINUTE_MS * MINUTE_MS),
        "weight": pl.Series(np.concatenate([c.weight for c in columns])),
        "origin": pl.Series(np.concatenate([c.origin for c in columns])),
    }
    base = _groups(keys, np.arange(len(at)))
    segmented = _segment_groups(base, parts)
    base.keys["segment"] = pl.repeat("", len(base.keys["part"]), eager=True)
    cells = [_cells(model, c) for model, c in parts]
    return pl.concat([_frame(parts, groups, cells) for groups in (base, segmented) if len(groups.rows)])


def write_profiles(store: Store, profiles: pl.DataFrame) -> None:
    """Write profile rows that know their source and batch."""
    mark(store, profiles)  # should nothing come after the profiles, no sum that lacks them holds
    store.insert("profile_batches", profiles)
    mark(store, profiles)


def _groups(keys: dict[str, pl.Series], rows: NDArray[np.int64]) -> _Groups:
    of_row, count = np.zeros(len(rows), np.int64), min(len(rows), 1)
    for values in keys.values():
        codes, kinds = _numbered(values.to_arrow(compat_level=pl.CompatLevel.oldest()))
        if kinds > 1:
            of_row, count = _numbered(of_row * kinds + codes)
    first = np.empty(count, np.int64)
    first[of_row[::-1]] = np.arange(len(rows))[::-1]  # the last one that is written is the first row
    return _Groups({name: values[first] for name, values in keys.items()}, of_row, rows)


def _numbered(values: pa.Array | NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """A number for each value, the same for equal ones and in the order of first sight; and how many there are."""
    import pyarrow as pa

    coded = (pa.array(values) if isinstance(values, np.ndarray) else values).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), len(coded.dictionary)


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


def _cells(model: Model, columns: PredictionColumns) -> _Cells:
    layout = model.layout
    if layout is None:
        return []
    found = [f for f in layout.features if f.name in columns.features]
    return [(layout.spans[f.name], f.cells(columns.features[f.name])) for f in found]


def _frame(parts: Sequence[Part], groups: _Groups, cells: Sequence[_Cells]) -> pl.DataFrame:
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
                _of_rows(of_part, groups.rows[here] - first_row[i], len(columns[i])),
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


def _of_rows(cells: _Cells, rows: NDArray[np.int64], all_rows: int) -> _Cells:
    if np.array_equal(rows, np.arange(all_rows)):
        return cells
    return [(span, of_all[rows]) for span, of_all in cells]


def _count(
    groups: NDArray[np.int64], size: int, cells: _Cells, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many cells of each group are not zero, which ones, group by group, and what they count."""
    if size * width <= DENSE_CELLS_PER_VALUE * len(groups) * len(cells) + 4096:
        table = np.zeros((size, width), np.int64)
        for span, of_row in cells:
            own = span.stop - span.start
            table[:, span] = np.bincount(groups * own + of_row, minlength=size * own).reshape(size, own)
        found = np.flatnonzero(table)
        counts = table.ravel()[found]
    else:
        keys = [groups * width + (of_row + span.start) for span, of_row in cells]
        found, counts = np.unique(np.concatenate([NONE, *keys]), return_counts=True)
    return np.bincount(found // width, minlength=size), found % width, counts


def _starts(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of some runs begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
