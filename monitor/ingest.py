"""Events in: decode a batch, write its rows and its profiles, and say what became of every line.

Everything written is keyed by where it came from (source, batch, row), so taking a batch in again changes nothing.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import structlog
from numpy.typing import NDArray

from alerts.ledger import LedgerError
from monitor.columns import PredictionColumns, lists, prediction_columns, redact, together
from monitor.config import Config, ConfigError, ModelSpec
from monitor.decode import Decoded, Fields, Reject, decode
from monitor.fast import LEAST_LINES, models_of, read_clean
from monitor.profile import profile_rows, write_profiles
from monitor.reference import References
from monitor.registry import Model, Registry
from monitor.store import Store, StoreError
from monitor.store.gathered import Gathered
from monitor.store.literals import literal

BATCH_TABLES = ("predictions", "features", "profiles", "labels", "releases", "health", "dead_letters")
HASH_FACTOR = 2654435761
HASH_RANGE = 2**32
log = structlog.get_logger()


@dataclass(frozen=True)
class Origin:
    """Where a batch came from. Source and batch together are its identity.

    arrived
        When all of it had been received for the first time.
    arrivals
        When each line had been, in epoch seconds, where the lines did not come together.
    """

    source: str
    batch: str
    arrived: datetime
    arrivals: Sequence[float] | None = field(default=None, repr=False)

    @property
    def first_arrived(self) -> datetime:
        """When the first of it was received."""
        return datetime.fromtimestamp(min(self.arrivals), UTC) if self.arrivals else self.arrived


@dataclass(frozen=True)
class Receipt:
    """What became of a batch. Everything in it is durable."""

    accepted: int
    rejects: Sequence[Reject]

    def to_dict(self) -> dict[str, Any]:
        """The answer of ``POST /v1/events``; lines count from 1, as editors do."""
        rejected = [{"line": r.row + 1, "reason": f"{r.reason}: {r.detail}"} for r in self.rejects]
        return {"accepted": self.accepted, "rejected": rejected}


@dataclass(frozen=True)
class _Read:
    """A batch that was read: what went line by line, and what was proven clean, by place of its model."""

    decoded: Decoded
    clean: Mapping[tuple[str, str], tuple[Model, PredictionColumns]]


def kept(ids: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """Which rows a sample keeps: a hash of the prediction id, the same in every pod, for labels, and in the store.

    >>> kept(["a"], 1.0).tolist(), kept(["a"], 0.5).tolist(), zlib.crc32(b"a") * HASH_FACTOR % HASH_RANGE
    ([True], [False], 4200413011)
    """
    if fraction >= 1:
        return np.ones(len(ids), bool)
    hashes = np.array([zlib.crc32(i.encode("utf-8", "surrogatepass")) for i in ids], np.uint64)
    return (hashes * np.uint64(HASH_FACTOR)) % np.uint64(HASH_RANGE) < np.uint64(fraction * HASH_RANGE)


class Ingest:
    """Takes batches of lines in. Safe to call from several threads."""

    def __init__(self, store: Store, registry: Registry, references: References, config: Config) -> None:
        self._store = store
        self._registry = registry
        self._references = references
        self._config = config

    def take(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str] = frozenset()) -> Receipt:
        """Take a batch in; returns when it is durable. ``allowed``: the models its sender may write to; empty for all.

        Raises StoreError when the store refuses; nothing is lost then, as the caller can send the same batch again.
        """
        try:
            return self._take(self._read(lines, origin, allowed), origin)
        except (StoreError, LedgerError, ConfigError):
            raise
        except Exception:
            failing = self._failing(lines, origin, allowed)
            # A fault of ours that one line brings to light must not hold up all that come after it.
            log.exception("lines that cannot be processed become dead letters", rows=[r.row for r in failing])
            rows = {reject.row for reject in failing}
            decoded = self._decoded([b"" if n in rows else line for n, line in enumerate(lines)], origin, allowed)
            decoded.rejects.extend(failing)
            return self._take(_Read(decoded, {}), origin)

    def _read(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> _Read:
        """Clean lines of models that have a layout as columns, all others one by one."""
        clean: dict[tuple[str, str], tuple[Model, PredictionColumns]] = {}
        rest = list(lines)
        arrived = np.broadcast_to(np.array(origin.arrivals or origin.arrived.timestamp()), len(lines))
        for place, numbers in models_of(lines).items():
            model = self._registry.find(*place)
            if len(numbers) < LEAST_LINES or model is None or model.layout is None or not self._is_open(model, allowed):
                continue
            rows = np.array(numbers)
            columns = read_clean([lines[n] for n in numbers], rows, arrived[rows], place, model.spec)
            if columns is not None:
                clean[place] = (model, columns)
                for row in columns.row.tolist():
                    rest[row] = b""
        return _Read(self._decoded(rest, origin, allowed), clean)

    def _is_open(self, model: Model, allowed: frozenset[str]) -> bool:
        """Whether the sender may write to the model at all."""
        unknown = self._config.unknown_models == "reject" and model.name not in self._config.models
        return not unknown and (not allowed or model.name in allowed)

    def _decoded(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> Decoded:
        known = self._config.models.__contains__ if self._config.unknown_models == "reject" else None
        return decode(lines, origin.arrivals or origin.arrived.timestamp(), known, allowed)

    def _take(self, read: _Read, origin: Origin) -> Receipt:
        decoded = read.decoded
        self._write("dead_letters", dead_letter_rows(decoded.rejects), origin)
        for environment, name in decoded.predictions.keys() - read.clean.keys():
            self._take_predictions(environment, name, decoded.predictions[environment, name], origin)
        gathered = Gathered(self._store)
        for place, (model, columns) in read.clean.items():
            events = decoded.predictions.get(place, [])
            parts = [columns, prediction_columns(events, model.spec)] if events else [columns]
            self._registry.learn(*place, events, origin.first_arrived)
            self._write_predictions(model, together(parts), origin, gathered)
        gathered.write()
        self._write_labels(decoded, origin)
        self._write("releases", release_rows(decoded.releases), origin)
        self._write("health", health_rows(decoded.health), origin)
        return Receipt(decoded.accepted + sum(len(columns) for _, columns in read.clean.values()), decoded.rejects)

    def _failing(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> list[Reject]:
        """The lines that cannot be processed even alone. Nothing is written."""
        failing = []
        for row, line in enumerate(lines):
            try:
                self._rehearse(self._decoded([line], origin, allowed))
            except Exception as error:  # noqa: BLE001 - whatever it is, the line is kept with it
                failing.append(Reject(row, "internal_error", f"{type(error).__name__}: {str(error)[:200]}", line))
        return failing

    def _rehearse(self, decoded: Decoded) -> None:
        for (environment, name), events in decoded.predictions.items():
            model = self._registry.find(environment, name)
            spec = model.spec if model else self._config.models.get(name) or ModelSpec()
            profile_rows(prediction_columns(events, spec), spec, model.layout if model else None)
        self._redact_labels(decoded)
        label_rows(decoded.labels)
        release_rows(decoded.releases)
        health_rows(decoded.health)

    def forget(self, origin: Origin) -> None:
        """Remove everything that is there of a batch."""
        for table in BATCH_TABLES:
            where = f"source = {literal(origin.source)} AND batch = {literal(origin.batch)}"
            self._store.execute(f"DELETE FROM {table} WHERE {where}")  # noqa: S608 - quoted, and tables are ours

    def _take_predictions(self, environment: str, name: str, events: Sequence[Fields], origin: Origin) -> None:
        model = self._registry.learn(environment, name, events, origin.first_arrived)
        if model.layout is not None:
            self._write_predictions(model, prediction_columns(events, model.spec), origin, self._store)
            return
        with self._references.learning:  # the layout is made from rows; none may slip in behind it without its cells
            model = self._registry.learn(environment, name, events, origin.first_arrived)
            self._write_predictions(model, prediction_columns(events, model.spec), origin, self._store)
            if model.layout is None:
                self._references.after_rows(model, len(events), origin.arrived)

    def _write_predictions(self, model: Model, columns: PredictionColumns, origin: Origin, store: Store) -> None:
        base = _base(columns, model)
        sampling = model.spec.sampling
        # Without a layout the rows are what profiles will be made from, so all are kept.
        of_features = 1.0 if model.layout is None else sampling.features
        for table, fraction, add in (
            ("features", of_features, _feature_values),
            ("predictions", sampling.predictions, _slim_values),
        ):
            keep = kept(base["prediction_id"].to_list(), fraction) if fraction < 1 else None
            sampled = base.with_columns(pl.col("weight") / fraction).filter(keep) if keep is not None else base
            self._write(table, sampled.with_columns(add(columns, model, keep)), origin, store)
        profiles = profile_rows(columns, model.spec, model.layout).drop("origin")
        placed = profiles.with_columns(source=pl.lit(origin.source), batch=pl.lit(origin.batch))
        write_profiles(store, model, placed)

    def _write_labels(self, decoded: Decoded, origin: Origin) -> None:
        self._redact_labels(decoded)
        self._write("labels", label_rows(decoded.labels), origin)

    def _redact_labels(self, decoded: Decoded) -> None:
        for event in decoded.labels:
            spec = self._config.models.get(event["model"])
            if spec is not None and "prediction_id" in spec.privacy.hash:
                redact([event], spec)

    def _write(self, table: str, rows: pl.DataFrame, origin: Origin, store: Store | None = None) -> None:
        if rows.is_empty():
            return
        placed = rows.with_columns(
            source=pl.lit(origin.source), batch=pl.lit(origin.batch), row=pl.col("row").cast(pl.UInt32)
        )
        if table != "features":
            placed = placed.with_columns(received=pl.lit(origin.arrived).cast(pl.Datetime("ms", "UTC")))
        (store or self._store).insert(table, placed)


def _base(columns: PredictionColumns, model: Model) -> pl.DataFrame:
    """What both row tables hold."""
    size = len(columns)
    return pl.DataFrame(
        {
            "environment": pl.Series([model.environment]).new_from_index(0, size),
            "model": pl.Series([model.name]).new_from_index(0, size),
            **{name: columns.texts[name] for name in ("version", "server", "role", "prediction_id")},
            "timestamp": moments(columns.at),
            "segments": _segments(columns),
            "weight": columns.weight,
            "failed": columns.failed,
            "score": columns.score,
            "latency_ms": columns.features["@latency"].values.fill_null(np.nan),
            "row": columns.row,
        }
    )


def _segments(columns: PredictionColumns) -> pl.Series:
    if not columns.segments:
        return _nothing(len(columns))
    named = pl.DataFrame(columns.segments)
    return named.select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()


def _slim_values(columns: PredictionColumns, _: Model, keep: NDArray[np.bool_] | None) -> pl.DataFrame:
    """What is in a slim row alone."""
    texts = {name: columns.texts[name] for name in ("error", "entity_id", "batch_id", "trace_id")}
    values = pl.DataFrame({**texts, "label": columns.label.fill_null("")})
    return values if keep is None else values.filter(keep)


def _feature_values(columns: PredictionColumns, model: Model, keep: NDArray[np.bool_] | None) -> pl.DataFrame:
    """What is in a feature row alone."""
    spec = model.spec
    names = (*spec.num_names, *spec.cat_names)
    values = pl.DataFrame({n: columns.features[n].values for n in names} | {"@label": columns.label})
    extras = columns.extras
    if keep is not None:
        values = values.filter(keep)
        extras = list(itertools.compress(extras, keep.tolist()))
    kept_aside = any(extras)
    size = values.height
    numbers = values.select(spec.num_names).fill_null(np.nan).to_numpy(order="c")
    levels = values.select(spec.cat_names)
    return pl.DataFrame(
        {
            "schema_id": pl.Series([model.schema_id], dtype=pl.UInt64).new_from_index(0, size),
            "num": lists(np.arange(size + 1) * numbers.shape[1], numbers.ravel())
            if spec.num_names
            else floats([()] * size),
            "cat": levels.select(pl.concat_list(pl.all())).to_series() if levels.width else _nothing(size),
            "extra_names": texts([list(x or ()) for x in extras]) if kept_aside else _nothing(size),
            "extra_values": texts([list((x or {}).values()) for x in extras]) if kept_aside else _nothing(size),
            "label": values["@label"],
        }
    )


def _nothing(size: int) -> pl.Series:
    """An empty list for each row."""
    return lists(np.zeros(size + 1, np.int64), pl.Series([], dtype=pl.String))


def dead_letter_rows(rejects: Sequence[Reject]) -> pl.DataFrame:
    """The rows of ``dead_letters``, without their place."""
    return pl.DataFrame(
        {
            "row": [r.row for r in rejects],
            "reason": [r.reason for r in rejects],
            "detail": [r.detail for r in rejects],
            "raw": pl.Series([r.raw for r in rejects], dtype=pl.Binary),
        }
    )


def label_rows(events: Sequence[Fields]) -> pl.DataFrame:
    """The rows of ``labels``, without their place."""
    return pl.DataFrame(
        {
            "environment": [e["environment"] for e in events],
            "model": [e["model"] for e in events],
            "prediction_id": [e["prediction_id"] for e in events],
            "timestamp": moments([e["at"] for e in events]),
            "label": [e["text"] for e in events],
            "number": pl.Series([as_number(e["label"]) for e in events], dtype=pl.Float64),
            "retracted": [e["label"] is None for e in events],
            "outcome_names": texts([list(e["outcomes"]) for e in events]),
            "outcome_values": floats([list(e["outcomes"].values()) for e in events]),
            "row": [e["row"] for e in events],
        }
    )


def release_rows(events: Sequence[Fields]) -> pl.DataFrame:
    """The rows of ``releases``, without their place."""
    return pl.DataFrame(
        {
            "environment": [e["environment"] for e in events],
            "model": [e["model"] for e in events],
            "version": [e["version"] for e in events],
            "action": [e["action"] for e in events],
            "timestamp": moments([e["at"] for e in events]),
            "servers": texts([e["servers"] for e in events]),
            "released_by": [e["by"] for e in events],
            "reason": [e["reason"] for e in events],
            "artifact_digest": [e["artifact_digest"] for e in events],
            "row": [e["row"] for e in events],
        }
    )


def health_rows(events: Sequence[Fields]) -> pl.DataFrame:
    """The rows of ``health``, without their place."""
    return pl.DataFrame(
        {
            "environment": [e["environment"] for e in events],
            "server": [e["server"] for e in events],
            "model": [e["model"] for e in events],
            "version": [e["version"] for e in events],
            "timestamp": moments([e["at"] for e in events]),
            "ok": [e["ok"] for e in events],
            "latency_ms": pl.Series([e["latency_ms"] for e in events], dtype=pl.Float64, strict=False),
            "status_code": pl.Series([e.get("status_code") or 0 for e in events], dtype=pl.UInt16),
            "error": [e["error"] for e in events],
            "resource_names": texts([list(e["resources"]) for e in events]),
            "resource_values": floats([list(e["resources"].values()) for e in events]),
            "row": [e["row"] for e in events],
        }
    )


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
    # Cut, not rounded: a row must not fall into another minute than the one it was counted in.
    milliseconds = np.floor(np.round(np.asarray(seconds, np.float64) * 1e6) / 1000).astype(np.int64)
    return pl.Series(milliseconds).cast(pl.Datetime("ms", "UTC"))


def as_number(value: object) -> float:
    """A label as a number for regression: booleans are 0 and 1, texts are read; NaN where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]  # what does not fit raises
    except (TypeError, ValueError, OverflowError):
        return float("nan")
