"""Predictions as rows of the two row tables, those of many models at once: what costs per call is paid once."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitor.columns import PredictionColumns, lists, milliseconds
from monitor.profile import Part
from monitor.registry import Model

if TYPE_CHECKING:
    import pyarrow as pa

HASH_FACTOR = 2654435761
HASH_RANGE = 2**32


def kept(ids: pl.Series, fraction: float) -> NDArray[np.bool_]:
    """Which rows a sample keeps: a hash of the prediction id, the same in every pod, for labels, and in the store.

    >>> a = pl.Series(["a"])
    >>> kept(a, 1.0).tolist(), kept(a, 0.5).tolist(), zlib.crc32(b"a") * HASH_FACTOR % HASH_RANGE
    ([True], [False], 4200413011)
    """
    if fraction >= 1:
        return np.ones(len(ids), bool)
    hashes = np.fromiter(map(zlib.crc32, ids.cast(pl.Binary).to_list()), np.uint64, len(ids))
    return (hashes * np.uint64(HASH_FACTOR)) % np.uint64(HASH_RANGE) < np.uint64(fraction * HASH_RANGE)


def slim_rows(parts: Sequence[Part]) -> pl.DataFrame:
    """The rows of ``predictions``, without their place."""
    # A prediction whose features are kept is kept: by it alone is known whom they are about.
    parts = _sampled(parts, lambda model: max(model.spec.sampling.predictions, _features_share(model)))
    columns = [c for _, c in parts]
    names = ("error", "entity_id", "batch_id", "trace_id")
    more = {n: pl.concat([c.texts[n] for c in columns]) for n in names}
    label = pl.concat([c.label for c in columns]).fill_null("")
    return pl.DataFrame({**_both(parts), **more, "label": label})


def feature_rows(parts: Sequence[Part]) -> pl.DataFrame:
    """The rows of ``features``, without their place."""
    parts = _sampled(parts, _features_share)
    columns = [c for _, c in parts]
    held = [_values(model, c) for model, c in parts]
    return pl.DataFrame(
        {
            **_both(parts),
            "schema_id": np.repeat(np.array([m.schema_id for m, _ in parts], np.uint64), [len(c) for c in columns]),
            "num": _end_to_end([v.numbers for v in held]),
            "cat": _end_to_end([v.levels for v in held]),
            **_extra_lists(list(itertools.chain.from_iterable(c.extras for c in columns))),
            "label": pl.concat([c.label for c in columns]),
        }
    )


def _features_share(model: Model) -> float:
    # Without a layout the rows are what profiles will be made from, so all are kept.
    return model.spec.sampling.features if model.layout else 1.0


def _extra_lists(extras: Sequence[dict[str, str] | None]) -> dict[str, pl.Series]:
    """Names and texts of what was kept aside of each row; few rows have any."""
    having = [row for row, extra in enumerate(extras) if extra]
    found = [extra for extra in extras if extra]
    lengths = np.zeros(len(extras), np.int64)
    lengths[having] = [len(extra) for extra in found]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    names, values = (list(itertools.chain.from_iterable(x)) for x in (found, (extra.values() for extra in found)))
    return {
        "extra_names": lists(offsets, pl.Series(names, dtype=pl.String)),
        "extra_values": lists(offsets, pl.Series(values, dtype=pl.String)),
    }


@dataclass(frozen=True)
class _Lists:
    """As many values for each of some rows, row by row."""

    rows: int
    width: int
    flat: pa.Array


@dataclass(frozen=True)
class _Values:
    numbers: _Lists
    levels: _Lists


def _values(model: Model, columns: PredictionColumns) -> _Values:
    import pyarrow as pa

    spec, features, size = model.spec, columns.features, len(columns)
    # A missing number becomes NaN in NumPy, as it is in the table.
    numbers = [features[n].values.to_numpy() for n in spec.num_names]
    levels = [features[n].values.to_arrow(compat_level=pl.CompatLevel.oldest()) for n in spec.cat_names]
    by_row = np.arange(size * len(levels)).reshape(len(levels), size).T.ravel() if levels else np.empty(0, np.int64)
    return _Values(
        _Lists(size, len(numbers), pa.array(np.column_stack(numbers).ravel() if numbers else np.empty(0))),
        _Lists(
            size,
            len(levels),
            pa.concat_arrays(levels).take(pa.array(by_row)) if levels else pa.array([], pa.large_string()),
        ),
    )


def _end_to_end(parts: Sequence[_Lists]) -> pl.Series:
    import pyarrow as pa

    lengths = np.repeat([p.width for p in parts], [p.rows for p in parts])
    return lists(np.concatenate([[0], np.cumsum(lengths)]), pa.concat_arrays([p.flat for p in parts]))


def _sampled(parts: Sequence[Part], share: Callable[[Model], float]) -> list[Part]:
    """The rows that a sample keeps, with for how many requests each of them stands."""
    return [
        (model, columns if share(model) >= 1 else _sample(model, columns, share(model))) for model, columns in parts
    ]


def _sample(model: Model, columns: PredictionColumns, share: float) -> PredictionColumns:
    keep = kept(columns.texts["prediction_id"], share)
    if "prediction_id" in model.spec.privacy.hash:  # the pod chose by another id, so these are two samples of two
        weight = columns.weight / share
    else:  # The pod chose by the same hash: of its share and the store's, the smaller one is a part of the larger one.
        keep |= columns.weight >= 1 / share
        weight = np.maximum(columns.weight, 1 / share)
    return replace(columns.take(np.flatnonzero(keep)), weight=weight[keep])


def _segments(columns: PredictionColumns) -> pl.Series:
    if not columns.segments:
        return _nothing(len(columns))
    named = pl.DataFrame(columns.segments)
    return named.select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()


def _nothing(size: int) -> pl.Series:
    """An empty list for each row."""
    return lists(np.zeros(size + 1, np.int64), pl.Series([], dtype=pl.String))


def texts(rows: Sequence[Sequence[str]]) -> pl.Series:
    """A column of lists of texts. Polars would build one object a row."""
    return _lists(rows, pl.String())


def floats(rows: Sequence[Sequence[float]]) -> pl.Series:
    """A column of lists of numbers."""
    return _lists(rows, pl.Float64())


def _lists(rows: Sequence[Sequence[object]], kind: pl.DataType) -> pl.Series:
    offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))])
    return lists(offsets, pl.Series(list(itertools.chain.from_iterable(rows)), dtype=kind))


def moments(seconds: Sequence[float] | NDArray[np.float64]) -> pl.Series:
    """Epoch seconds as the store's time type."""
    return pl.Series(milliseconds(seconds)).cast(pl.Datetime("ms", "UTC"))


def _both(parts: Sequence[Part]) -> dict[str, Any]:
    """What both row tables hold."""
    columns = [c for _, c in parts]
    of_row = np.repeat(np.arange(len(parts)), [len(c) for c in columns])
    return {
        "environment": pl.Series([m.environment for m, _ in parts])[of_row],
        "model": pl.Series([m.name for m, _ in parts])[of_row],
        **{n: pl.concat([c.texts[n] for c in columns]) for n in ("version", "server", "role", "prediction_id")},
        "timestamp": moments(np.concatenate([c.at for c in columns])),
        "segments": pl.concat([_segments(c) for c in columns]),
        "weight": np.concatenate([c.weight for c in columns]),
        "failed": np.concatenate([c.failed for c in columns]),
        "score": np.concatenate([c.score for c in columns]),
        "latency_ms": pl.concat([c.features["@latency"].values for c in columns]).fill_null(np.nan),
        "row": np.concatenate([c.row for c in columns]),
    }
