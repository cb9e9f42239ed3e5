"""Events in: decode a batch, write its rows and its profiles, and say what became of every line.

Everything written is keyed by where it came from (source, batch, row), so taking a batch in again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import structlog
from numpy.typing import NDArray

from alerts.ledger import LedgerError
from monitor.clocks import least_delays
from monitor.columns import PredictionColumns, prediction_columns, redact, together
from monitor.config import Config, ConfigError, DeadLetterLimits, ModelSpec
from monitor.dead_letter_watch import DeadLetterWatch, TooManyDeadLettersError
from monitor.decode import Decoded, Fields, Reject, decode
from monitor.fast import LEAST_LINES, models_of, read_clean
from monitor.folding import count_hours, mark, sealed_hours_of
from monitor.forgetting import Forgotten
from monitor.late import mark_labels
from monitor.profile import Part, profile_rows, write_profiles
from monitor.reference import References
from monitor.registry import Model, Registry
from monitor.rows import feature_rows, floats, moments, slim_rows, texts
from monitor.schema import undeclared_keys
from monitor.store import Store, StoreError
from monitor.store.literals import literal, render
from monitor.tables import TableLines, all_written, apart, read_tables

BATCH_TABLES = (
    "batches",
    "batch_hours",
    "predictions",
    "features",
    "profile_batches",
    "undeclared_keys",
    "labels",
    "releases",
    "health",
    "dead_letters",
)
REPLAYED = "dead_letters/"
"""Stands before the source of a batch in the name of what was taken in of its dead letters later."""
HOUR = timedelta(hours=1)
UNEXPECTED = (Exception, pl.exceptions.PanicException)
"""What a fault of ours raises. A panic of Polars is no Exception, and would end the reader of a topic."""
LEAST_ROWS = 32
"""Fewer rows of a model in a table are read as fast one by one, as lines."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Origin:
    """Where a batch came from. Source and batch together are its identity.

    arrived
        When all of it had been received for the first time.
    arrivals
        When each line had been, in epoch seconds, where the lines did not come together.
    last
        Its last offset, where it is a range of a log and ``batch`` is the first.
    taken
        When it is taken in, where that may be long after it arrived.
    """

    source: str
    batch: str
    arrived: datetime
    arrivals: Sequence[float] | None = field(default=None, repr=False)
    last: int | None = None
    taken: datetime | None = None

    @property
    def first_sighted(self) -> datetime:
        """When it was first known of."""
        if self.arrivals:
            return datetime.fromtimestamp(min(self.arrivals), UTC)
        return self.taken or self.arrived

    def arrivals_of(self, lines: int) -> NDArray[np.float64]:
        """When each of so many lines was received, in epoch seconds."""
        return np.broadcast_to(np.array(self.arrivals or self.arrived.timestamp()), lines)


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
    clean: Mapping[tuple[str, str], list[PredictionColumns]]
    lines: int


class Ingest:
    """Takes batches of lines in. Safe to call from several threads."""

    def __init__(self, store: Store, registry: Registry, references: References, config: Config) -> None:
        self._store = store
        self._registry = registry
        self._references = references
        self._config = config
        kafka = config.sources.kafka
        self.watch = DeadLetterWatch(kafka.dead_letters if kafka else DeadLetterLimits())
        self.forgotten = Forgotten(store)
        self._replayed: set[tuple[str, str]] = set()
        self.refresh()

    def refresh(self) -> None:
        """See of which batches dead letters were replayed and which predictions were forgotten, also elsewhere."""
        self.forgotten.refresh()
        self._replayed = set(self._store.query("replayed_batches").iter_rows())

    def take(
        self,
        lines: Sequence[bytes],
        origin: Origin,
        allowed: frozenset[str] = frozenset(),
        refused: Sequence[Reject] = (),
    ) -> Receipt:
        """Take a batch in; returns when it is durable.

        allowed
            The models its sender may write to; empty for all.
        refused
            Of records that could not be made lines; at their rows there are empty lines.

        Raises StoreError when the store refuses; nothing is lost then, as the caller can send the same batch again.
        Raises TooManyDeadLettersError for a batch of a log that is taken for broken.
        """

        def watched(read: _Read) -> None:
            if origin.last is not None:
                self._watch(read.decoded.rejects, lines, origin)
                if self._ends_elsewhere(origin):
                    self._clear(origin)
            if (origin.source, origin.batch) in self._replayed:
                self.drop_replay(origin)

        return self._take_with(lines, origin, allowed, refused, watched)

    def _ends_elsewhere(self, origin: Origin) -> bool:
        """Whether another batch of the log is there under this name. What only that one has would stay unseen."""
        record = self._store.query("batch_record", source=origin.source, batch=origin.batch)
        return not record.is_empty() and record["last"][0] != origin.last

    def retake(self, lines: Sequence[bytes], origin: Origin, *, anew: bool = False) -> Receipt:
        """Take a batch of a log in again, whatever the dead-letter watch would make of it.

        anew
            What is there of it is removed before. Its record stays, so that the auditor sees it should the rest fail.
        """

        def removed(_: _Read) -> None:
            if anew:
                self._clear(origin)
            else:
                self.drop_replay(origin)

        return self._take_with(lines, origin, frozenset(), (), removed)

    def _take_with(
        self,
        lines: Sequence[bytes],
        origin: Origin,
        allowed: frozenset[str],
        refused: Sequence[Reject],
        before: Callable[[_Read], None],
    ) -> Receipt:
        """``before`` is called with what was read, before anything is written."""
        try:
            read = self._read(lines, origin, allowed)
            read.decoded.rejects.extend(refused)
            before(read)
            return self._take(read, origin)
        except (StoreError, LedgerError, ConfigError, TooManyDeadLettersError):
            raise
        except UNEXPECTED:
            lines, broken = all_written(lines)
            failing = self._failing(lines, origin, allowed)
            # A fault of ours that one line brings to light must not hold up all that come after it.
            log.exception("lines that cannot be processed become dead letters", rows=[r.row for r in failing])
            rows = {reject.row for reject in failing}
            decoded = self._decoded([b"" if n in rows else line for n, line in enumerate(lines)], origin, allowed)
            decoded.rejects.extend((*failing, *refused, *broken))
            read = _Read(decoded, {}, len(lines))
            before(read)
            return self._take(read, origin)

    def _watch(self, rejects: Sequence[Reject], lines: Sequence[bytes], origin: Origin) -> None:
        """Have the watch count the lines that are not blank; rows of tables never are."""
        written, tables = apart(lines)
        said = np.array([bool(line) and not line.isspace() for line in written], bool)
        for first, table in tables:
            said[first : first + len(table)] = True
        numbers = np.cumsum(said) - 1
        rows = {row for reject in rejects for row in range(reject.row, reject.row + reject.rows) if said[row]}
        self.watch.check(origin.source, origin.batch, numbers[sorted(rows)].tolist(), int(said.sum()))

    def _read(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> _Read:
        """Clean lines and rows of models that have a layout as columns, all others one by one."""
        clean: dict[tuple[str, str], list[PredictionColumns]] = defaultdict(list)
        rest, tables = apart(lines)
        arrived = origin.arrivals_of(len(lines))
        only_tables = len(rest) == sum(len(table) for _, table in tables)
        for place, numbers in ({} if only_tables else models_of(rest)).items():
            model = self._with_layout(place, allowed) if len(numbers) >= LEAST_LINES else None
            if model is None:
                continue
            rows = np.array(numbers)
            some = [rest[n] for n in numbers]
            columns = _guarded(read_clean, some, rows, arrived[rows], place, model.spec)
            if columns is not None:
                clean[place].append(columns)
                for row in columns.row.tolist():
                    rest[row] = b""
        broken = self._read_tables(tables, rest, arrived, allowed, clean) if tables else []
        decoded = self._decoded(rest, origin, allowed) if any(rest) else Decoded()
        decoded.rejects.extend(broken)
        return _Read(decoded, clean, len(lines))

    def _read_tables(
        self,
        tables: Sequence[tuple[int, TableLines]],
        rest: list[bytes],
        arrived: NDArray[np.float64],
        allowed: frozenset[str],
        clean: dict[tuple[str, str], list[PredictionColumns]],
    ) -> list[Reject]:
        """Adds the clean rows of tables to ``clean``, and the lines of the others to ``rest``."""
        read, broken = read_tables(tables)
        for events, numbers in read:
            left = np.ones(events.size, bool)
            for place, at in events.places():
                model = self._with_layout(place, allowed) if len(at) >= LEAST_ROWS else None
                if model is None:
                    continue
                rows = numbers[at]
                columns = _guarded(events.some(at).predictions, rows, arrived[rows], place, model.spec)
                if columns is not None:
                    clean[place].append(columns)
                    left[np.searchsorted(numbers, columns.row)] = False
            others = np.flatnonzero(left)
            for row, line in zip(numbers[others].tolist(), events.lines(others), strict=True):
                rest[row] = line
        return broken

    def _with_layout(self, place: tuple[str, str], allowed: frozenset[str]) -> Model | None:
        """The model, if its events may become columns at once."""
        model = self._registry.find(*place)
        return model if model is not None and model.layout is not None and self._is_open(model, allowed) else None

    def _is_open(self, model: Model, allowed: frozenset[str]) -> bool:
        """Whether the sender may write to the model at all."""
        unknown = self._config.unknown_models == "reject" and model.name not in self._config.models
        return not unknown and (not allowed or model.name in allowed)

    def refused(self, lines: Sequence[bytes], origin: Origin) -> list[Reject]:
        """The lines that would be refused. Nothing is written."""
        return self._decoded(lines, origin, frozenset()).rejects

    def _decoded(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> Decoded:
        def known(name: str) -> bool:
            # What the sender may not write to is refused for that, whether it is declared or not: it is for ever.
            return name in self._config.models or bool(allowed and name not in allowed)

        rejecting = self._config.unknown_models == "reject"
        return decode(lines, origin.arrivals or origin.arrived.timestamp(), known if rejecting else None, allowed)

    def _take(self, read: _Read, origin: Origin) -> Receipt:
        decoded = read.decoded
        rejects_id = _rejects_id(decoded.rejects)
        if decoded.rejects:
            letters = dead_letter_rows(decoded.rejects).with_columns(rejects_id=pl.lit(rejects_id, pl.UInt64))
            self._write("dead_letters", letters, origin)
        placed = []
        for place in {**decoded.predictions, **read.clean}:
            events = decoded.predictions.get(place, [])
            model = self._registry.learn(*place, events, origin.first_sighted)
            if model.layout is None:
                self._take_first_predictions(*place, events, origin)
                continue
            others = [prediction_columns(events, model.spec)] if events else []
            placed.append((model, together([*read.clean.get(place, ()), *others])))
        self._write_predictions(placed, origin)
        labels = self._write_labels(decoded, origin) if decoded.labels else 0
        if decoded.releases:
            self._write("releases", release_rows(decoded.releases), origin)
        if decoded.health:
            self._write("health", health_rows(decoded.health), origin)
        accepted = decoded.accepted + sum(len(columns) for parts in read.clean.values() for columns in parts)
        unprofiled = len(decoded.labels) + len(decoded.releases) + len(decoded.health)
        counts = {
            "rejected": len(decoded.rejects),
            "predictions": accepted - unprofiled,
            "others": unprofiled,
            "labels": labels,
            "labels_from": max(0, int(min((e["at"] for e in decoded.labels), default=0.0))),
            "rejects_id": rejects_id,
        }
        self._count(origin, counts, self._clocks(read, origin))  # when all else is there
        return Receipt(accepted, decoded.rejects)

    def _clocks(self, read: _Read, origin: Origin) -> pl.DataFrame:
        columns = ((environment, c) for (environment, _), parts in read.clean.items() for c in parts)
        return least_delays(read.decoded.predictions, columns, origin.arrivals_of(read.lines))

    def _count(self, origin: Origin, counts: Mapping[str, int], clocks: pl.DataFrame) -> None:
        """Say what became of the batch, for the auditor, and what it tells of clocks."""
        offsets = (-1, -1) if origin.last is None else (int(origin.batch), origin.last)
        count = {
            **{name: pl.Series([number], dtype=pl.UInt64) for name, number in counts.items()},
            **clocks.to_dict(),
            "source": [origin.source],
            "batch": [origin.batch],
            "first": [offsets[0]],
            "last": [offsets[1]],
            "received": [origin.arrived],
            "taken": [origin.taken or origin.arrived],
            "revision": [self._config.intake_revision],
        }
        self._store.insert("batches", pl.DataFrame(count))

    def _failing(self, lines: Sequence[bytes], origin: Origin, allowed: frozenset[str]) -> list[Reject]:
        """The lines that cannot be processed even alone. Nothing is written."""
        failing = []
        parts = [(0, len(lines))]
        while parts:
            start, end = parts.pop()
            try:
                some = replace(origin, arrivals=origin.arrivals and origin.arrivals[start:end])
                self._rehearse(self._decoded(lines[start:end], some, allowed))
            except UNEXPECTED as error:  # whatever it is, the line is kept with it
                if end - start > 1:
                    middle = (start + end) // 2
                    parts += [(middle, end), (start, middle)]
                    continue
                detail = f"{type(error).__name__}: {str(error)[:200]}"
                failing.append(Reject(start, "internal_error", detail, lines[start]))
        return failing

    def _rehearse(self, decoded: Decoded) -> None:
        for (environment, name), events in decoded.predictions.items():
            model = self._registry.find(environment, name)
            model = model or Model(environment, name, self._config.models.get(name) or ModelSpec())
            profile_rows([(model, prediction_columns(events, model.spec))])
        self._redact_labels(decoded)
        label_rows(decoded.labels)
        release_rows(decoded.releases)
        health_rows(decoded.health)

    def forget(self, origin: Origin) -> None:
        """Remove everything that is there of a batch. What fails midway is finished by doing it again.

        Its record goes first, so that the auditor leaves the rest to whoever takes the batch in.
        """
        others = self._others(origin)
        self._delete("batches", origin)
        self._clear(origin, others)

    def drop(self, origin: Origin) -> None:
        """Remove a batch of which all is there in others as well.

        Its record goes last, so that the auditor sees that there is something left should this fail midway.
        """
        self._clear(origin, self._others(origin))
        self._delete("batches", origin)

    def _others(self, origin: Origin) -> int | None:
        """How many labels, releases and health checks a batch has; None of one that was not finished."""
        record = self._store.query("batch_record", source=origin.source, batch=origin.batch)
        return None if record.is_empty() else record["others"][0]

    def note_replay(self, source: str, batch: str) -> None:
        """Hear that dead letters of a batch are being replayed."""
        self._replayed.add((source, batch))

    def _clear(self, origin: Origin, others: int | None = None) -> None:
        """Remove what is there of a batch but its record. The hours that it counts in are known until the end.

        others
            How many labels, releases and health checks it has, where that is known: of a batch that was finished.
        """
        self.drop_replay(origin)
        places = self._store.query("batch_places", source=origin.source, batch=origin.batch)
        marked = places.rename({"hour": "minute"})
        mark(self._store, marked)
        for table in ("profile_batches", "undeclared_keys"):
            self._delete(table, origin, _within(places, "minute"))
        mark(self._store, marked)
        # Of a batch that was not finished, there may be rows in hours where nothing is counted.
        within = "1" if others is None else _within(places, "timestamp")
        for table in ("predictions", "features"):
            self._delete(table, origin, within)
        if others != 0:
            known = self._store.query("batch_labels", source=origin.source, batch=origin.batch)
            mark_labels(self._store, known)
            for table in ("labels", "releases", "health"):
                self._delete(table, origin)
            mark_labels(self._store, known)
        self._delete("dead_letters", origin)
        self._delete("batch_hours", origin, _within(places, "hour"))

    def _delete(self, table: str, origin: Origin, within: str = "1") -> None:
        where = f"source = {literal(origin.source)} AND batch = {literal(origin.batch)} AND {within}"
        self._store.execute(f"DELETE FROM {table} WHERE {where}")  # noqa: S608 - quoted, and tables are ours

    def drop_replay(self, origin: Origin) -> None:
        """Remove what was replayed of a batch's dead letters: now they come with it, or are dead letters again."""
        replay = Origin(REPLAYED + origin.source, origin.batch, origin.arrived)
        asked = {"source": origin.source, "batch": origin.batch, "replay": replay.source}
        if self._store.query("replays_of_batch", **asked)["held"][0]:
            # Where the replay is in a sealed sum, what the batch brings again is counted there.
            sealed = sealed_hours_of(self._store, replay.source, replay.batch)
            here = {"source": pl.lit(origin.source), "batch": pl.lit(origin.batch)}
            self._store.insert("sealed_batches", sealed.with_columns(**here))
            self.forget(replay)
            self._delete("replayed_letters", origin)
        self._replayed.discard((origin.source, origin.batch))

    def _take_first_predictions(self, environment: str, name: str, events: Sequence[Fields], origin: Origin) -> None:
        """Of a model whose layout will be made from rows: none may slip in behind it without its cells."""
        with self._references.learning:
            model = self._registry.learn(environment, name, events, origin.first_sighted)
            self._write_predictions([(model, prediction_columns(events, model.spec))], origin)
            if model.layout is None:
                self._references.after_rows(model, len(events), origin.arrived)

    def _write_predictions(self, parts: Sequence[Part], origin: Origin) -> None:
        if not parts:
            return
        features, predictions = map(self.forgotten.left_out, (feature_rows(parts), slim_rows(parts)))
        self._write("features", features, origin)
        self._write("predictions", predictions, origin)
        place = (pl.lit(origin.source).alias("source"), pl.lit(origin.batch).alias("batch"))
        profiles = profile_rows(parts)
        write_profiles(self._store, profiles.select(pl.exclude("origin"), *place))
        undeclared = [undeclared_keys(model, columns) for model, columns in parts if columns.undeclared.any()]
        if undeclared:
            self._store.insert("undeclared_keys", pl.concat(undeclared).with_columns(*place))
        hours = count_hours(profiles, predictions, features)
        self._store.insert("batch_hours", hours.with_columns(*place))

    def _write_labels(self, decoded: Decoded, origin: Origin) -> int:
        """Gives how many rows."""
        self._redact_labels(decoded)
        rows = self.forgotten.left_out(label_rows(decoded.labels))
        self._write("labels", rows, origin)
        mark_labels(self._store, rows)
        return rows.height

    def _redact_labels(self, decoded: Decoded) -> None:
        for event in decoded.labels:
            spec = self._config.models.get(event["model"])
            if spec is not None and "prediction_id" in spec.privacy.hash:
                redact([event], spec)

    def _write(self, table: str, rows: pl.DataFrame, origin: Origin) -> None:
        if rows.is_empty():
            return
        placed = rows.with_columns(
            source=pl.lit(origin.source), batch=pl.lit(origin.batch), row=pl.col("row").cast(pl.UInt32)
        )
        if table != "features":
            placed = placed.with_columns(received=pl.lit(origin.arrived).cast(pl.Datetime("ms", "UTC")))
        self._store.insert(table, placed)


def _guarded(read: Callable[..., PredictionColumns | None], *given: Any) -> PredictionColumns | None:
    """What a columnar reader gives; None where it fails, as all can be read line by line."""
    try:
        return read(*given)
    except UNEXPECTED:
        log.exception("events go one by one, as the columnar reader failed")
        return None


def _rejects_id(rejects: Sequence[Reject]) -> int:
    """Names a set of refused lines; 0 where there are none."""
    if not rejects:
        return 0
    told = "\n".join(sorted(f"{reject.row} {reject.reason}" for reject in rejects))
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big")


def _within(places: pl.DataFrame, time: str) -> str:
    """A condition that keeps a statement to the hours of some models, as the tables are ordered by both."""
    if places.is_empty():
        return "0"
    models = places.select("environment", "model").unique().rows()
    named = ", ".join(f"({literal(environment)}, {literal(model)})" for environment, model in models)
    hours: list[datetime] = places["hour"].to_list()
    span = {"start": min(hours), "end": max(hours) + HOUR}
    bounds = f"{time} >= {{start:DateTime64(3, 'UTC')}} AND {time} < {{end:DateTime64(3, 'UTC')}}"
    return f"(environment, model) IN ({named}) AND {render(bounds, span)}"


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


def as_number(value: object) -> float:
    """A label as a number for regression: booleans are 0 and 1, texts are read; NaN where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]  # what does not fit raises
    except (TypeError, ValueError, OverflowError):
        return float("nan")
