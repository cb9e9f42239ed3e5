"""Clean lines to columns, with no Python object per value. What cannot be proven clean is left to ``decode.py``.

Arrow's JSON reader gets a fixed schema and is told to refuse whatever is not in it. It then takes a line only if that
is JSON without an undeclared key at any depth, without a key that comes twice, without half a surrogate pair, and with
every value of the declared kind or null. What remains to be proven is proven here:

- It takes several objects in one line for several rows, and one object over several lines for one row (and it crashes
  on a ``null`` outside of all objects). So every line must begin with ``{``, end with ``}`` and hold no line break: no
  object goes on behind a ``}`` with a ``{``, so each line holds at least one object, and as many rows as lines is one
  row a line. Lines where a ``null`` might follow a ``}`` are left out.
- It does not look whether text is UTF-8. That is looked at before.
- It takes NaN and Infinity. Lines with a number that is not finite are left out.
- It does not tell null from an absent key. They are the same except for three keys (``NEVER_NULL``); lines where one of
  them might be null are left out, and so are lines that may spell a key with escapes.

The kinds of what may be of several kinds (timestamps, answers, levels) are taken from the first lines. They decide only
how fast a line is read, never what it becomes: ``decode.py`` gives the same columns, and a test holds the two equal.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from detectors.layout import Column, Kind
from monitor.columns import (
    ABSENT,
    LATENCY,
    NONE,
    OTHER,
    PREDICTION,
    SCORE,
    TEXTS,
    PredictionColumns,
)
from monitor.config import ModelSpec
from monitor.decode import EARLIEST_TIMESTAMP, LARGEST_EXACT, LATEST_TIMESTAMP, LEAST_FRACTION, label_text
from monitor.events import FUTURE_LIMIT_SECONDS

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_LINES = 32
"""For fewer lines a schema is not worth making."""
LOOKED_AT = 8
"""How many of the first lines say of which kinds values are."""
LONGEST_LINE = 64 * 1024
BLOCK = 1024 * 1024
PIECE_LINES = 1_000
SMALLEST_PIECE = 16
KEYS = ("version", "server", "prediction_id")
OPTIONAL_TEXTS = ("type", "environment", "model", "role", "status", "error", "entity_id", "batch_id", "trace_id")
NEVER_NULL = ("environment", "role", "status")
LOOSE_NULLS = (b"}null", b"} null", b"  null", b"\tnull", b"\rnull")
"""Every spelling of a null that follows a ``}`` holds one of these."""
ESCAPED_LETTERS = (b"\\u006", b"\\u007")
MODEL = re.compile(rb'"model": ?"([^"\\]*)"')
ENVIRONMENT = re.compile(rb'"environment": ?"([^"\\]*)"')
BROKEN_ROW = re.compile(r"in row (\d+)$")
COMMON_TIME = r"^\d{4}-\d\d-\d\dT[012]\d:[0-5]\d:[0-5]\d(\.\d{3}|\.\d{6})?(Z|[+-][01]\d:[0-5]\d)$"
Kinds = str | dict[str, Any] | None
"""``text``, ``number``, ``boolean``, the kinds in an object, None where only nulls were seen, else ``mixed``."""


def models_of(lines: Sequence[bytes]) -> dict[tuple[str, str], list[int]]:
    """Which lines seem to be of which model (environment, name). A guess; what is read says what it is.

    >>> models_of([b'{"model":"m"}', b'{"model": "k"}', b"{}", b'{"model":"m"}'])
    {('production', 'm'): [0, 3], ('production', 'k'): [1]}
    """
    found: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for number, line in enumerate(lines):
        model = MODEL.search(line)
        if model is not None:
            environment = ENVIRONMENT.search(line) if b'"environment"' in line else None
            found[environment[1] if environment else b"production", model[1]].append(number)
    return {(e.decode("utf-8", "replace"), m.decode("utf-8", "replace")): rows for (e, m), rows in found.items()}


def read_clean(
    lines: Sequence[bytes],
    rows: NDArray[np.int64],
    arrived: NDArray[np.float64],
    place: tuple[str, str],
    spec: ModelSpec,
) -> PredictionColumns | None:
    """The predictions in those of the lines that are proven clean; ``row`` says which. None where there are none.

    rows, arrived
        Number and arrival (epoch seconds) of each line.
    place
        Environment and name of the model; lines of another one are left out.
    """
    if spec.privacy.drop or spec.privacy.hash:
        return None
    plausible = _plausible(lines)
    if plausible is not None:
        lines, rows, arrived = [lines[i] for i in plausible], rows[plausible], arrived[plausible]
    shape = _shape(lines[:LOOKED_AT], spec)
    if shape is None or len(lines) < LEAST_LINES:
        return None
    read = list(_read(lines, shape, spec))
    if not read:
        return None
    import pyarrow as pa

    order = np.concatenate([positions for positions, _ in read])
    table = pa.concat_tables([part for _, part in read])
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tells the type checker what a table becomes
    return _Reading(frame, rows[order], arrived[order], place, shape, spec).columns()


def _plausible(lines: Sequence[bytes]) -> list[int] | None:
    """The numbers of the lines that may be given to Arrow; None for all of them."""
    joined = b"\n".join(lines)
    breaks = len(lines) - 1
    marks = _marks(joined)
    if (
        joined.count(b"}\n{") == breaks
        and joined.count(b"\n") == breaks
        and joined.startswith(b"{")
        and joined.endswith(b"}")
        and max(map(len, lines)) <= LONGEST_LINE
        and not marks
        and _is_text(joined)
    ):
        return None
    return [
        number
        for number, line in enumerate(lines)
        if line.startswith(b"{")
        and line.endswith(b"}")
        and b"\n" not in line
        and len(line) <= LONGEST_LINE
        and not any(mark in line for mark in marks)
        and _is_text(line)
    ]


def _marks(joined: bytes) -> list[bytes]:
    """What in these bytes stands in the way of a proof."""
    found = [m for m in ESCAPED_LETTERS if m in joined] if b"\\" in joined else []
    if b"null" in joined:
        found += [m for m in LOOSE_NULLS if m in joined]
        for key in (b'"%b"' % name.encode() for name in NEVER_NULL):
            if key in joined:
                nulled = (key + b":null", key + b": null", key + b" ", key + b"\t", key + b"\r")
                found += [m for m in nulled if m in joined]
    return found


def _is_text(raw: bytes) -> bool:
    if raw.isascii():
        return True
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _shape(lines: Sequence[bytes], spec: ModelSpec) -> dict[str, Kinds] | None:
    """The kinds of values in the first lines; None where they hold nothing that could be read fast."""
    events = []
    for line in lines:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if type(event) is dict:
            events.append(event)
    kinds = _kinds(events)
    if not events or not isinstance(kinds, dict):
        return None
    answer = kinds.get("prediction")
    if answer == "mixed" or (spec.task == "regression" and answer in ("text", "boolean")):
        return None
    if isinstance(answer, dict) and answer.get("score") not in (None, "number"):
        return None
    return kinds


def _kinds(values: Sequence[object]) -> Kinds:
    """The most common kind of some values; the first of two that are as common."""
    known = [_KINDS.get(type(v), "mixed") for v in values if v is not None]
    if not known:
        return None
    common = Counter(known).most_common(1)[0][0]
    if common != "object":
        return common
    objects = [v for v in values if isinstance(v, dict)]
    return {name: _kinds([o.get(name) for o in objects]) for name in dict.fromkeys(n for o in objects for n in o)}


_KINDS: Mapping[type, str] = {str: "text", bool: "boolean", int: "number", float: "number", dict: "object"}


def _schema(shape: Mapping[str, Kinds], spec: ModelSpec) -> pa.Schema:
    import pyarrow as pa

    texts: dict[str, Kinds] = dict.fromkeys(OPTIONAL_TEXTS, "text")
    numbers: dict[str, Kinds] = dict.fromkeys(("latency_ms", "sampling_fraction"), "number")
    given = shape.get("segments")
    segments = {**given, **dict.fromkeys(spec.segments, "text")} if isinstance(given, dict) else {}
    fields: dict[str, Kinds] = {
        **shape,
        **texts,
        **numbers,
        **{name: _one_of(shape.get(name), "text", "number") for name in (*KEYS, "timestamp")},
        "features": {
            name: "number" if feature.kind is Kind.NUMERIC else _level_kind(shape, name)
            for name, feature in spec.features.items()
        },
        "segments": segments,
        "prediction": shape.get("prediction"),
    }
    return pa.schema([(name, _arrow(kinds)) for name, kinds in fields.items() if kinds != "mixed"])


def _one_of(kinds: Kinds, *allowed: str) -> str:
    return kinds if isinstance(kinds, str) and kinds in allowed else allowed[0]


def _level_kind(shape: Mapping[str, Kinds], name: str) -> str:
    features = shape.get("features")
    return _one_of(features.get(name) if isinstance(features, dict) else None, "text", "number", "boolean")


def _arrow(kinds: Kinds) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kinds, dict):
        return pa.struct([(name, _arrow(inner)) for name, inner in kinds.items() if inner != "mixed"])
    return {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_(), None: pa.null()}[kinds]


class _Broken(Exception):  # noqa: N818 - it never leaves this module
    """Arrow refused some lines; ``row`` is the first of them, where it said so."""

    def __init__(self, row: int | None) -> None:
        super().__init__()
        self.row = row


def _read(
    lines: Sequence[bytes], shape: Mapping[str, Kinds], spec: ModelSpec
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """Tables of lines, and which lines they are of. Lines that Arrow refuses are left out."""
    schema = _schema(shape, spec)
    try:
        yield np.arange(len(lines)), _parse(lines, schema)
    except _Broken:
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, line in enumerate(lines):  # odd lines mostly differ in these from those around them
            alike[line.count(b'"'), line.count(b":")].append(number)
        for numbers in alike.values():
            if len(numbers) >= LEAST_LINES:
                for start in range(0, len(numbers), PIECE_LINES):
                    yield from _salvage(lines, numbers[start : start + PIECE_LINES], schema)


def _salvage(
    lines: Sequence[bytes], numbers: Sequence[int], schema: pa.Schema
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """What can be read of a piece. Each line is tried a few times at most, whatever is wrong with how many."""
    while len(numbers) >= SMALLEST_PIECE:
        try:
            yield np.array(numbers), _parse([lines[n] for n in numbers], schema)
        except _Broken as broken:
            if len(numbers) == 1:
                return
            if broken.row is None:
                half = len(numbers) // 2
                yield from _salvage(lines, numbers[:half], schema)
                numbers = numbers[half:]
            else:
                yield from _salvage(lines, numbers[: broken.row], schema)
                numbers = numbers[broken.row + 1 :]
        else:
            return


def _parse(lines: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    try:
        table = arrow_json.read_json(
            pa.BufferReader(b"\n".join(lines)),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid as error:
        row = BROKEN_ROW.search(str(error))
        raise _Broken(int(row[1]) if row and int(row[1]) < len(lines) else None) from None
    if table.num_rows != len(lines):
        raise _Broken(None)
    return table


class _Reading:
    """What Arrow read of some lines, and what of it is right."""

    def __init__(
        self,
        frame: pl.DataFrame,
        rows: NDArray[np.int64],
        arrived: NDArray[np.float64],
        place: tuple[str, str],
        shape: Mapping[str, Kinds],
        spec: ModelSpec,
    ) -> None:
        self._shape = shape
        self._spec = spec
        self._frame = frame
        at = _times(frame["timestamp"])
        right = frame.select(self._contract(place)).to_series().to_numpy() & (at <= arrived + FUTURE_LIMIT_SECONDS)
        right &= (at >= EARLIEST_TIMESTAMP) & (at <= LATEST_TIMESTAMP)
        self._rows, self._at = rows, at
        if not right.all():
            self._frame = frame.filter(pl.Series(right))
            self._rows, self._at = rows[right], at[right]

    def columns(self) -> PredictionColumns | None:
        if self._frame.is_empty():
            return None
        frame, size = self._frame, self._frame.height
        answers, score, label = self._answers()
        fraction = frame["sampling_fraction"].fill_null(1.0).to_numpy()
        return PredictionColumns(
            row=self._rows,
            texts={n: _text_of(frame[n]).fill_null(ABSENT.get(n, "")).alias(n) for n in TEXTS},
            segments={name: self._segment(name, declared) for name, declared in self._spec.segments.items()},
            origin=np.zeros(size, np.int64),
            at=self._at,
            weight=1.0 / fraction,
            failed=frame["status"].eq_missing(pl.Series(["error"])).to_numpy(),
            features=self._features() | answers | {LATENCY: _column(frame["latency_ms"])},
            score=score.fill_null(np.nan).to_numpy(),
            label=label,
            extras=[None] * size,
            undeclared=np.zeros(size, np.int64),
        )

    def _contract(self, place: tuple[str, str]) -> pl.Expr:
        """Whether each line is what the contract asks for, but for its time."""
        environment, model = place
        keys = (self._right_key(n) for n in KEYS)
        return pl.all_horizontal(
            pl.col("type").eq_missing(pl.lit("prediction")),
            pl.col("model").eq_missing(pl.lit(model)),
            pl.col("environment").fill_null("production") == environment,
            pl.lit(bool(environment and model)),
            pl.col("role").fill_null("live").is_in(["live", "shadow"]),
            pl.col("status").fill_null("ok").is_in(["ok", "error"]),
            pl.col("sampling_fraction").fill_null(1.0).is_between(LEAST_FRACTION, 1.0),
            *keys,
            *self._numbers_to_be_told_apart(),
            pl.sum_horizontal(self._numbers()).fill_null(0.0).is_finite(),
        )

    def _right_key(self, name: str) -> pl.Expr:
        if self._frame.schema[name] == pl.Float64:
            return (pl.col(name).abs() < LARGEST_EXACT).fill_null(value=False)
        return (pl.col(name) != "").fill_null(value=False)

    def _numbers(self) -> list[pl.Expr]:
        """All numbers that become a value; the sum of a row is finite only if each of them is."""
        found = [pl.col(n) for n in ("latency_ms",)]
        for holder in ("features", "prediction"):
            kind = self._frame.schema[holder]
            if isinstance(kind, pl.Struct):
                found += [pl.col(holder).struct.field(f.name) for f in kind.fields if f.dtype == pl.Float64]
            elif kind == pl.Float64:
                found.append(pl.col(holder))
        return found

    def _numbers_to_be_told_apart(self) -> list[pl.Expr]:
        """Numbers that become texts must be exact."""
        names = [("features", n) for n in self._spec.cat_names]
        told = [pl.col("prediction")] if self._frame.schema["prediction"] == pl.Float64 else []
        if isinstance(self._shape.get("prediction"), dict):
            names.append(("prediction", "label"))
        for holder, name in names:
            kind = self._frame.schema[holder]
            if isinstance(kind, pl.Struct) and any(f.name == name and f.dtype == pl.Float64 for f in kind.fields):
                told.append(pl.col(holder).struct.field(name))
        if self._spec.task == "regression":
            told = [e for e in told if e.meta.output_name() != "prediction"]
        return [(e.abs() < LARGEST_EXACT).fill_null(value=True) for e in told]

    def _features(self) -> dict[str, Column]:
        holder = self._frame["features"].struct
        return {
            name: _column(
                holder.field(name) if feature.kind is Kind.NUMERIC else _text_of(holder.field(name), "true", "false")
            )
            for name, feature in self._spec.features.items()
        }

    def _segment(self, name: str, declared: Sequence[str]) -> pl.Series:
        kind = self._frame.schema["segments"]
        if not isinstance(kind, pl.Struct) or name not in {f.name for f in kind.fields}:
            return pl.repeat(None, self._frame.height, dtype=pl.String, eager=True)
        value = pl.col("segments").struct.field(name)
        known = pl.when(value.is_in(list(declared))).then(value).otherwise(pl.lit(OTHER))
        return self._frame.select(pl.when(value.is_not_null()).then(pl.lit(f"{name}=") + known)).to_series()

    def _answers(self) -> tuple[dict[str, Column], pl.Series, pl.Series]:
        """The columns of the outputs, the score, and the label."""
        answer = self._frame["prediction"]
        score = pl.repeat(None, len(answer), dtype=pl.Float64, eager=True)
        label = pl.repeat(None, len(answer), dtype=pl.String, eager=True)
        kinds = self._shape.get("prediction")
        if isinstance(kinds, dict):
            score = answer.struct.field("score").cast(pl.Float64) if "score" in kinds else score
            label = _text_of(answer.struct.field("label"), "1", "0") if _is_scalar(kinds.get("label")) else label
        elif kinds == "number" and (self._spec.task == "regression" or self._spec.threshold is not None):
            score = answer
        elif kinds is not None:
            label = _text_of(answer, "1", "0")
        if self._spec.task == "regression":
            return {PREDICTION: _column(score)}, score, pl.repeat(None, len(answer), dtype=pl.String, eager=True)
        if self._spec.threshold is not None:
            passed = pl.when(score >= self._spec.threshold).then(pl.lit("1")).otherwise(pl.lit("0"))
            label = pl.select(pl.coalesce(label, pl.when(score.is_not_null()).then(passed))).to_series()
        return {PREDICTION: _column(label), SCORE: _column(score)}, score, label


def _is_scalar(kinds: Kinds) -> bool:
    return kinds in ("text", "number", "boolean")


def _column(values: pl.Series) -> Column:
    return Column(values, NONE, NONE)


def _times(values: pl.Series) -> NDArray[np.float64]:
    """Epoch seconds; NaN for what is not in a common form."""
    if values.dtype == pl.Float64:
        return values.fill_null(np.nan).to_numpy()
    common = pl.when(values.str.contains(COMMON_TIME)).then(values)
    moments = pl.select(common.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)).to_series()
    micros = moments.to_physical()
    exact = pl.select(pl.when(micros.abs() < int(LARGEST_EXACT)).then(micros)).to_series()
    return exact.cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6


def _text_of(values: pl.Series, true: str = "", false: str = "") -> pl.Series:
    """Values as text, as ``label_text`` gives it."""
    if values.dtype == pl.String:
        return values
    if values.dtype == pl.Boolean:
        return pl.select(pl.when(values).then(pl.lit(true)).when(~values).then(pl.lit(false))).to_series()
    if values.dtype == pl.Null:
        return values.cast(pl.String)
    distinct = values.drop_nulls().unique().to_list()
    texts = pl.Series([label_text(v) for v in distinct], dtype=pl.String)
    return values.replace_strict(pl.Series(distinct, dtype=pl.Float64), texts, return_dtype=pl.String)
