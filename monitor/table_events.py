"""Events as columns, by the wire contract: a column is a field, a row is an event, a null is a key that is not there.

Columns become what ``fast.py`` proves of lines, without an object per value. Rows in which something is of another kind
than the contract or the model has it become the lines that they stand for, and go the way of all lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitor.arrow_stream import CELL_BYTES, LARGEST_TABLE
from monitor.columns import PredictionColumns
from monitor.config import ModelSpec
from monitor.decode import LARGEST_EXACT, json_text
from monitor.events import MAX_EVENT_BYTES
from monitor.fast import WANTED, Kinds, plan_for
from monitor.tables import BadTableError, LargeTableError

OBJECTS = frozenset({"features", "segments", "prediction", "outcomes", "resources"})
"""The fields that are objects: a column for each of their keys, such as ``features.income``, or a column of structs."""
FIELDS = OBJECTS | {
    *("type", "environment", "model", "version", "server", "prediction_id", "timestamp", "latency_ms", "status"),
    *("error", "role", "sampling_fraction", "entity_id", "batch_id", "trace_id", "label", "action", "servers", "by"),
    *("reason", "artifact_digest", "ok", "status_code"),
}
KEYS = ("version", "server", "prediction_id")
LABEL, TIMESTAMP = ("label",), ("timestamp",)
LONGEST_ESCAPE = 6
LONGEST_NUMBER = 32
TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e6}
"""Of a time column in a second; nanoseconds are cut to microseconds, as those of texts are."""
Path = tuple[str, ...]


@dataclass(frozen=True)
class TableEvents:
    """Events in columns. Each column holds booleans, numbers, decimals, texts, times, or lists of the first four."""

    size: int
    columns: Mapping[Path, pa.Array]

    def lines(self, rows: NDArray[np.int64] | None = None) -> list[bytes]:
        """The lines that some rows stand for; of all, if none are named."""
        events: list[dict[str, Any]] = [{} for _ in range(self.size if rows is None else len(rows))]
        for path, column in self.columns.items():
            *holders, name = path
            values = _values(column if rows is None else column.take(pa.array(rows)))
            for event, value in zip(events, values, strict=True):
                if value is None and path != LABEL:  # a label that is null takes an earlier one back
                    continue
                for holder in holders:
                    event = event.setdefault(holder, {})  # noqa: PLW2901 - going down
                event[name] = value
        return [json_text(event).encode() for event in events]

    def places(self) -> Iterator[tuple[tuple[str, str], NDArray[np.int64]]]:
        """The models (environment, name) that rows are of, and the rows of each. Rows without one are left out."""
        model = _as(self._column("model"), pa.string())
        environment = self._column("environment")
        if model is None or not _is_text(environment.type):
            return
        named = {"environment": environment.fill_null("production"), "model": model}
        frame = pl.from_arrow(pa.table(named))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tells the type checker what a table becomes
        for place, rows in frame.with_row_index().drop_nulls("model").group_by("environment", "model"):
            yield (str(place[0]), str(place[1])), rows["index"].to_numpy().astype(np.int64)

    def some(self, rows: NDArray[np.int64]) -> TableEvents:
        """Those in some of the rows."""
        if len(rows) == self.size:
            return self
        wanted = pa.array(rows)
        return TableEvents(len(rows), {path: column.take(wanted) for path, column in self.columns.items()})

    def predictions(
        self, rows: NDArray[np.int64], arrived: NDArray[np.float64], place: tuple[str, str], spec: ModelSpec
    ) -> PredictionColumns | None:
        """The predictions that are proven clean; ``row`` says which. None where there are none.

        rows, arrived
            Number and arrival (epoch seconds) of each row.
        place
            Environment and name of the model; events of another one are left out.
        """
        if spec.privacy.drop or spec.privacy.hash:
            return None
        plan = plan_for(self._shape(spec), place, spec)
        made, odd = self._fields([f for f in plan.schema if f.name in plan.names], spec)
        frame = pl.from_arrow(pa.Table.from_arrays(made, names=plan.names))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tells the type checker what a table becomes
        if odd.any():
            frame, rows, arrived = frame.filter(pl.Series(~odd)), rows[~odd], arrived[~odd]
        return None if frame.is_empty() else plan.columns(frame, rows, arrived)

    def _column(self, *path: str) -> pa.Array:
        column = self.columns.get(path)
        return pa.nulls(self.size, pa.string()) if column is None else column

    def _shape(self, spec: ModelSpec) -> dict[str, Kinds]:
        """The kinds of values, as ``fast.py`` tells them of lines."""
        return {
            **{name: _kind(self._column(name).type) for name in KEYS},
            "timestamp": "text" if _is_text(self._column("timestamp").type) else "number",
            "prediction": self._answer_kinds(spec),
            "features": {name: _kind(self._column("features", name).type) for name in spec.features},
            "segments": dict.fromkeys(spec.segments, "text"),
        }

    def _answer_kinds(self, spec: ModelSpec) -> Kinds:
        kinds = {path[1:]: _kind(c.type, "number") for path, c in self.columns.items() if path[0] == "prediction"}
        if () in kinds:
            return kinds[()] if spec.task != "regression" or kinds[()] == "number" else None
        score = {"score": "number"} if kinds.get(("score",)) == "number" else {}
        label = {"label": kinds["label",]} if kinds.get(("label",)) else {}
        return {**score, **label} or None

    def _fields(self, fields: Sequence[pa.Field], spec: ModelSpec) -> tuple[list[pa.Array], NDArray[np.bool_]]:
        """Some fields as a plan has them, and the rows in which something is of another kind, or undeclared."""
        odd = self._may_be_too_large()
        made: list[pa.Array] = []
        used: set[Path] = set()
        for field in fields:
            if pa.types.is_struct(field.type):
                inner = [field.type.field(i) for i in range(field.type.num_fields)]
                used |= {(field.name, f.name) for f in inner}
                values = [self._as_planned((field.name, f.name), f.type, odd) for f in inner]
                made.append(pa.StructArray.from_arrays(values, names=[f.name for f in inner]))
            else:
                used.add((field.name,))
                made.append(self._as_planned((field.name,), field.type, odd))
        for path in self.columns.keys() - used:
            if _is_list(self.columns[path].type) or not _is_passed_over(path, spec):
                self._mark(odd, path)
        return made, odd

    def _as_planned(self, path: Path, kind: pa.DataType, odd: NDArray[np.bool_]) -> pa.Array:
        column = self.columns.get(path)
        if column is None:
            return pa.nulls(self.size, kind)
        made = _seconds(column) if path == TIMESTAMP and pa.types.is_timestamp(column.type) else _as(column, kind)
        if made is None:
            self._mark(odd, path)
            return pa.nulls(self.size, kind)
        return made

    def _mark(self, odd: NDArray[np.bool_], path: Path) -> None:
        """The rows that have a value there."""
        odd |= self.columns[path].is_valid().to_numpy(zero_copy_only=False)

    def _may_be_too_large(self) -> NDArray[np.bool_]:
        """Rows that may have more bytes as a line than an event may have. Their lines say so."""
        spelled = [LONGEST_ESCAPE * sum(map(len, path)) + LONGEST_NUMBER for path in self.columns]
        lengths = [_text_lengths(c) for c in self.columns.values() if _is_text(c.type)]
        longest = sum(spelled) + LONGEST_ESCAPE * sum(int(each.max(initial=0)) for each in lengths)
        if longest <= MAX_EVENT_BYTES:
            return np.zeros(self.size, bool)
        large: NDArray[np.bool_] = sum(spelled) + LONGEST_ESCAPE * np.sum(lengths, axis=0) > MAX_EVENT_BYTES
        return np.broadcast_to(large, self.size).copy()


def read_events(table: pa.Table) -> TableEvents:
    """The events of a table. Raises BadTableError for one that no event can be in."""
    try:
        return TableEvents(table.num_rows, _Reader().columns(table))
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:
        raise BadTableError(f"it cannot be read: {str(error)[:200]}") from None


def one_below_the_other(
    parts: Sequence[tuple[TableEvents, NDArray[np.int64]]],
) -> list[tuple[TableEvents, NDArray[np.int64]]]:
    """Tables, and the numbers of their rows; those with the same columns as one, as each costs some calls."""
    alike: dict[object, list[tuple[TableEvents, NDArray[np.int64]]]] = defaultdict(list)
    for events, numbers in parts:
        alike[tuple((path, column.type) for path, column in events.columns.items())].append((events, numbers))
    whole = []
    for group in alike.values():
        columns = {path: pa.concat_arrays([e.columns[path] for e, _ in group]) for path in group[0][0].columns}
        whole.append((TableEvents(sum(e.size for e, _ in group), columns), np.concatenate([n for _, n in group])))
    return whole


class _Reader:
    """Turns the columns of a table into plain ones, and sees to it that they do not become too large."""

    def __init__(self) -> None:
        self._held = 0
        self._columns: dict[Path, pa.Array] = {}

    def columns(self, table: pa.Table) -> dict[Path, pa.Array]:
        for name, column in zip(table.schema.names, table.columns, strict=True):
            if is_field(name):
                self._add(_path(name), column.combine_chunks())
        for path in self._columns:
            if any(path[:n] in self._columns for n in range(1, len(path))):
                raise BadTableError(f"it has {path[0]!r} both as a value and as an object")
        return self._columns

    def _add(self, path: Path, column: pa.Array) -> None:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            self._add(path, column.storage)
        elif pa.types.is_struct(kind):
            names = [kind.field(i).name for i in range(kind.num_fields)]
            for name, inner in zip(names, column.flatten(), strict=True):
                self._add((*path, name), inner)
        elif path in self._columns:
            raise BadTableError(f"it has two columns {'.'.join(path)[:60]!r}")
        elif not pa.types.is_null(kind) or path == LABEL:
            self._columns[path] = self._plain(path, column)

    def _plain(self, path: Path, column: pa.Array) -> pa.Array:
        kind = column.type
        if pa.types.is_dictionary(kind):
            values = self._plain(path, column.dictionary)
            if _is_text(values.type):
                self._count(int(_text_lengths(values)[column.indices.drop_null().to_numpy()].sum()))
            return values.take(column.indices)
        if pa.types.is_float16(kind) or pa.types.is_float32(kind):
            return column.cast(pa.float64())
        if pa.types.is_date(kind):
            return column.cast(pa.date32()).cast(pa.string())
        if pa.types.is_string_view(kind):
            self._count(_view_bytes(column))
            return column.cast(pa.large_string())
        if _is_list(kind):
            if not _is_element(kind.value_type):
                raise BadTableError(_no_meaning(path, kind))
            self._count(CELL_BYTES * len(column.flatten()))
        elif not (_is_element(kind) or pa.types.is_timestamp(kind) or pa.types.is_decimal(kind) or path == LABEL):
            raise BadTableError(_no_meaning(path, kind))
        return column

    def _count(self, size: int) -> None:
        """Hold what is unpacked against the limit before it is."""
        self._held += size
        if self._held > LARGEST_TABLE:
            raise LargeTableError(f"it has more than {LARGEST_TABLE} bytes as lines; send smaller tables")


def is_field(name: str) -> bool:
    """Whether a column is a field of an event, or of an object in one."""
    return _path(name)[0] in FIELDS


def _path(name: str) -> Path:
    """Where in an event a column stands.

    >>> _path("features.a.b"), _path("prediction.score.yes"), _path("model"), _path("my.own")
    (('features', 'a.b'), ('prediction', 'score', 'yes'), ('model',), ('my.own',))
    """
    first, dot, rest = name.partition(".")
    if not dot or first not in OBJECTS:
        return (name,)
    if first == "prediction" and rest.startswith("score."):
        return (first, "score", rest.removeprefix("score."))
    return (first, rest)


def _is_passed_over(path: Path, spec: ModelSpec) -> bool:
    """Whether a value there makes no difference to a prediction."""
    first, *inner = path
    if first == "prediction" and inner:
        return inner[0] not in ("score", "label")
    if first == "segments" and inner:
        return inner[0] not in spec.segments
    return first not in WANTED


def _kind(kind: pa.DataType, whole: str = "text") -> str | None:
    """What a type is called in a shape; whole numbers, of which all become exact texts, may be asked for as texts."""
    if _is_text(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if _is_whole(kind):
        return whole
    return "number" if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_element(kind: pa.DataType) -> bool:
    return bool(_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _no_meaning(path: Path, kind: pa.DataType) -> str:
    return f"column {'.'.join(path)[:60]!r} is of the type {str(kind)[:60]}, which means nothing in an event"


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """A column as another type, if that changes nothing of what its values mean."""
    given = column.type
    if pa.types.is_float64(kind):
        if pa.types.is_decimal(given):
            return column.cast(pa.string()).cast(kind)  # which finds the nearest one
        if pa.types.is_integer(given) or pa.types.is_floating(given):
            return column.cast(kind, safe=False)
    elif pa.types.is_string(kind):
        if _is_text(given):
            return column
        if _is_whole(given):
            return column.cast(kind)
    elif pa.types.is_boolean(kind) and pa.types.is_boolean(given):
        return column
    return None


def _seconds(column: pa.Array) -> pa.Array | None:
    """Epoch seconds of times with a zone."""
    unit = column.type.unit
    if column.type.tz is None:
        return None
    ticks = column.cast(pa.int64()).fill_null(0).to_numpy()
    if unit == "ns":
        ticks = ticks // 1000
    unknown = column.is_null().to_numpy(zero_copy_only=False) | (np.abs(ticks) >= LARGEST_EXACT)
    return pa.array(ticks / TICKS[unit], mask=unknown)


def _text_lengths(column: pa.Array) -> NDArray[np.int64]:
    """How many bytes each text has; 0 where there is none."""
    lengths: NDArray[np.int64] = pc.binary_length(column).fill_null(0).to_numpy().astype(np.int64)
    return lengths


def _view_bytes(column: pa.Array) -> int:
    """How many bytes all texts have, of which many may be the same bytes. A view begins with its length."""
    views = np.frombuffer(column.buffers()[1] or b"", np.int32).astype(np.int64)
    lengths = views[4 * column.offset : 4 * (column.offset + len(column)) : 4]
    return int(lengths[column.is_valid().to_numpy(zero_copy_only=False)].sum())


def _values(column: pa.Array) -> Sequence[Any]:
    """The values as JSON has them."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        ticks = column.cast(pa.int64()).fill_null(0).to_numpy().astype(f"datetime64[{kind.unit}]")
        zone = "" if kind.tz is None else "Z"
        texts = np.datetime_as_string(ticks).tolist()
        return [
            f"{text}{zone}" if known else None for text, known in zip(texts, column.is_valid().to_pylist(), strict=True)
        ]
    values: list[Any] = column.to_pylist()
    if pa.types.is_decimal(kind):
        plain = int if kind.scale == 0 else float
        return [None if value is None else plain(value) for value in values]
    return values
