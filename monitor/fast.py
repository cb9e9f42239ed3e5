"""Clean lines to columns, with no Python object per value. What cannot be proven clean is left to ``decode.py``.

Arrow's JSON reader gets a fixed schema and is told to refuse whatever is not in it. It then takes a line only if that
is JSON without an undeclared key at any depth, without a key that comes twice, without half a surrogate pair, and with
every value of the declared kind or null. What remains to be proven is proven here:

- It takes several objects in one line for several rows, and one object over several lines for one row (and it crashes
  on a ``null`` outside of all objects). So every line must begin with ``{``, end with ``}`` and hold no line break: no
  object goes on behind a ``}`` with a ``{``, so each line holds at least one object, and as many rows as lines is one
  row a line. Lines where a ``null`` might follow a ``}`` are left out.
- It does not look whether text is UTF-8. That is looked at before.
- It takes NaN and Infinity in more spellings than others do. Lines that may hold ``-NaN`` and those with an infinite
  number are left out, and so are those with NaN anywhere but in a numeric feature.
- It does not tell null from an absent key. They are the same except for three keys (``NEVER_NULL``); lines where one of
  them might be null are left out, and so are lines that may spell a key with escapes.

The kinds of what may be of several kinds (timestamps, answers, levels) are taken from the first lines. They decide only
how fast a line is read, never what it becomes: ``decode.py`` gives the same columns, and a test holds the two equal.
"""

from __future__ import annotations

import json
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
    WEIGHT_DIGITS,
    PredictionColumns,
)
from monitor.config import ModelSpec
from monitor.decode import EARLIEST_TIMESTAMP, LARGEST_EXACT, LATEST_TIMESTAMP, LEAST_FRACTION, label_text
from monitor.events import FUTURE_LIMIT_SECONDS

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_LINES = 300
"""Fewer lines of a model are read as fast one by one."""
LEAST_ALIKE = 32
LOOKED_AT = 4
"""How many of the first lines say of which kinds values are."""
LONGEST_LINE = 64 * 1024
BLOCK = 1024 * 1024
PIECE_LINES = 1_000
SMALLEST_PIECE = 16
RARE = 0.25
"""A form that fewer lines than this share have is given up when the first of them is refused."""
MOST_PLANS = 4_096
MOST_DEEP = 8
"""Objects in objects in objects: what lies deeper is of no kind that is read fast."""
HOLDERS = ("features", "segments", "prediction")
KEYS = ("version", "server", "prediction_id")
SAID = ("error", "entity_id", "batch_id", "trace_id")
OPTIONAL_TEXTS = ("type", "environment", "model", "role", "status", *SAID)
NEVER_NULL = ("environment", "role", "status")
LOOSE_NULLS = (b"}null", b"} null", b"  null", b"\t null", b"\r null", b"\tnull", b"\rnull")
"""Every spelling of a null that follows a ``}`` holds one of these."""
NEGATIVE_NAN = b"-NaN"
BREAK, OPENED, CLOSED = b"\n{}"
ESCAPED_LETTERS = (b"\\u006", b"\\u007")
WANTED = frozenset(
    {*OPTIONAL_TEXTS, *KEYS, "timestamp", "latency_ms", "sampling_fraction", "features", "segments", "prediction"}
)
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
    placed = any(b'"environment"' in line for line in lines[:LOOKED_AT])
    seen, numbers = b"\n", []
    for number, line in enumerate(lines):
        if seen not in line:
            model = MODEL.search(line)
            if model is None:
                continue
            environment = ENVIRONMENT.search(line) if placed else None
            seen = b"\n" if placed else model[0]
            numbers = found[environment[1] if environment else b"production", model[1]]
        numbers.append(number)
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
    plan = plan_for(shape, place, spec)
    read = list(_read(lines, plan.schema))
    if not read:
        return None
    import pyarrow as pa

    order = np.concatenate([positions for positions, _ in read])
    frame = pl.from_arrow(pa.concat_tables([part for _, part in read]).select(plan.names))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - tells the type checker what a table becomes
    return plan.columns(frame, rows[order], arrived[order])


def _plausible(lines: Sequence[bytes]) -> list[int] | None:
    """The numbers of the lines that may be given to Arrow; None for all of them."""
    joined = b"\n".join(lines)
    marks = _marks(joined)
    is_text = _is_text(joined)
    letters = np.frombuffer(joined, np.uint8)
    breaks = np.flatnonzero(letters == BREAK)
    in_one_line = len(breaks) == len(lines) - 1
    if (
        in_one_line
        and joined.startswith(b"{")
        and joined.endswith(b"}")
        and (letters[breaks - 1] == CLOSED).all()
        and (letters[breaks + 1] == OPENED).all()
        and max(map(len, lines)) <= LONGEST_LINE
        and not marks
        and is_text
    ):
        return None
    return [
        number
        for number, line in enumerate(lines)
        if line.startswith(b"{")
        and line.endswith(b"}")
        and len(line) <= LONGEST_LINE
        and (is_text or line.isascii() or _is_text(line))
        and (in_one_line or b"\n" not in line)
        and not (marks and any(mark in line for mark in marks))
    ]


def _marks(joined: bytes) -> list[bytes]:
    """What in these bytes stands in the way of a proof."""
    found = [m for m in ESCAPED_LETTERS if m in joined] if b"\\" in joined else []
    if b"N" in joined and NEGATIVE_NAN in joined:  # one letter is looked for ten times as fast
        found.append(NEGATIVE_NAN)
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
            event = orjson.loads(line) if b"NaN" not in line else json.loads(line)
        except (ValueError, RecursionError):
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


def _kinds(values: Sequence[object], depth: int = 0) -> Kinds:
    """The most common kind of some values; the first of two that are as common."""
    types = [type(v) for v in values if v is not None]
    if not types:
        return None
    known = (_KINDS.get(t, "mixed") for t in types)
    common = next(known) if len(set(types)) == 1 else Counter(known).most_common(1)[0][0]
    if common != "object":
        return common
    if depth > MOST_DEEP:
        return "mixed"
    objects = [v for v in values if isinstance(v, dict)]
    names = dict.fromkeys(n for o in objects for n in o)
    return {name: _kinds([o.get(name) for o in objects], depth + 1) for name in names}


_KINDS: Mapping[type, str] = {str: "text", bool: "boolean", int: "number", float: "number", dict: "object"}


def _schema(shape: Mapping[str, Kinds], spec: ModelSpec) -> pa.Schema:
    import pyarrow as pa

    texts: dict[str, Kinds] = dict.fromkeys(OPTIONAL_TEXTS, "text")
    numbers: dict[str, Kinds] = dict.fromkeys(("latency_ms", "sampling_fraction"), "number")
    given = shape.get("segments")
    segments = {**_scalars(given), **dict.fromkeys(spec.segments, "text")} if isinstance(given, dict) else {}
    answer = shape.get("prediction")
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
        "prediction": _scalars(answer) if isinstance(answer, dict) else answer,
    }
    return pa.schema([(name, _arrow(kinds)) for name, kinds in fields.items() if kinds != "mixed"])


def _one_of(kinds: Kinds, *allowed: str) -> str:
    return kinds if isinstance(kinds, str) and kinds in allowed else allowed[0]


def _scalars(kinds: Mapping[str, Kinds]) -> dict[str, Kinds]:
    return {name: inner for name, inner in kinds.items() if not isinstance(inner, dict)}


def _level_kind(shape: Mapping[str, Kinds], name: str) -> str:
    features = shape.get("features")
    return _one_of(features.get(name) if isinstance(features, dict) else None, "text", "number", "boolean")


def _arrow(kinds: Kinds) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kinds, dict):
        return pa.struct([(name, _arrow(inner)) for name, inner in kinds.items() if inner != "mixed"])
    return {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_(), None: pa.null()}[kinds]


def plan_for(shape: Mapping[str, Kinds], place: tuple[str, str], spec: ModelSpec) -> Plan:
    """The plan for events of this form. It is kept, as making it costs as much as reading some hundred lines."""
    key = (place, orjson.dumps(shape))
    plan = _plans.get(key)
    if plan is None or plan.spec is not spec:
        if len(_plans) >= MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = Plan(shape, place, spec)
    return plan


class _Broken(Exception):  # noqa: N818 - it never leaves this module
    """Arrow refused some lines; ``row`` is the first of them, where it said so."""

    def __init__(self, row: int | None) -> None:
        super().__init__()
        self.row = row


def _read(lines: Sequence[bytes], schema: pa.Schema) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """Tables of lines, and which lines they are of. Lines that Arrow refuses are left out."""
    try:
        yield np.arange(len(lines)), _parse(lines, schema)
    except _Broken:
        for numbers in _alike(lines):
            first = _parsed(lines, numbers[:1] if len(numbers) < RARE * len(lines) else numbers, schema)
            if first is not None and len(first) == len(numbers):
                yield np.array(numbers), first
            elif first is not None or len(numbers) >= RARE * len(lines):
                for start in range(0, len(numbers), PIECE_LINES):
                    yield from _salvage(lines, numbers[start : start + PIECE_LINES], schema)


def _alike(lines: Sequence[bytes]) -> Iterator[list[int]]:
    """Lines in groups that are large enough: odd ones mostly differ in these counts from those around them."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, line in enumerate(lines):
        truths = line.count(b":true") + line.count(b":false")
        groups[line.count(b'"'), line.count(b":"), line.count(b"["), line.count(b"{"), truths].append(number)
    return (numbers for numbers in groups.values() if len(numbers) >= LEAST_ALIKE)


def _parsed(lines: Sequence[bytes], numbers: Sequence[int], schema: pa.Schema) -> pa.Table | None:
    try:
        return _parse([lines[n] for n in numbers], schema)
    except _Broken:
        return None


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


class Plan:
    """How events of one form and model become columns: in one pass, as passes are what small groups cost."""

    def __init__(self, shape: Mapping[str, Kinds], place: tuple[str, str], spec: ModelSpec) -> None:
        self.spec = spec
        self.schema = _schema(shape, spec)
        self.names = [f.name for f in self.schema if f.name in WANTED and f.type != _arrow({})]
        self._fresh = {h: _fresh_names(self.schema, h) for h in HOLDERS if h in self.names}
        self._place = place
        self._wanted: list[pl.Expr] = []

    def _expressions(self) -> list[pl.Expr]:
        spec = self.spec
        score, label = self._answers()
        return [
            self._contract().alias("right"),
            *self._sum(),
            self._time().alias("at"),
            (1.0 / pl.col("sampling_fraction").fill_null(1.0)).round_sig_figs(WEIGHT_DIGITS).alias("weight"),
            pl.col("status").eq_missing(pl.lit("error")).alias("failed"),
            pl.col("latency_ms"),
            score.alias("score"),
            score.fill_null(np.nan).alias("number"),
            label.alias("label"),
            *(self._text(pl.col(n), n).alias(f"text {n}") for n in KEYS),
            pl.col("role").fill_null(ABSENT["role"]).alias("text role"),
            pl.col(SAID).fill_null("").name.prefix("text "),
            *(self._segment(*s).alias(f"segment {i}") for i, s in enumerate(spec.segments.items())),
            *self._features(),
        ]

    def columns(
        self, frame: pl.DataFrame, rows: NDArray[np.int64], arrived: NDArray[np.float64]
    ) -> PredictionColumns | None:
        """What is right of what was read of lines of these numbers that came at these times."""
        spec = self.spec
        frame = frame.with_columns(
            pl.col(holder).struct.rename_fields(list(names.values())) for holder, names in self._fresh.items() if names
        )
        if not self._wanted:  # Polars panics at some tables without rows, so the types are taken from one that has some
            self._schema = frame.schema
            self._wanted = self._expressions()
        found = frame.select(self._wanted)
        at = found["at"].to_numpy()
        if self._schema["timestamp"] != pl.Float64:
            at = at / 1e6  # Polars would multiply by a number that is not exactly a millionth
        right = found["right"].to_numpy() & (at <= arrived + FUTURE_LIMIT_SECONDS)
        right &= (at >= EARLIEST_TIMESTAMP) & (at <= LATEST_TIMESTAMP)
        odd = ~np.isfinite(found["sum"].to_numpy()) if "sum" in found.columns else np.zeros(len(right), bool)
        if odd.any():
            infinite = pl.any_horizontal(pl.col(f"feature {n}").is_infinite() for n in self._inputs())
            right &= ~(odd & found.select(infinite.fill_null(value=False)).to_series().to_numpy())
        if not right.all():
            found, rows, at = found.filter(pl.Series(right)), rows[right], at[right]
        if found.is_empty():
            return None
        if spec.task == "regression":
            outputs = {PREDICTION: _column(found["score"])}
        else:
            outputs = {PREDICTION: _column(found["label"]), SCORE: _column(found["score"])}
        features = {n: _column(found[f"feature {self._fresh['features'][n]}"]) for n in spec.features}
        extras: list[dict[str, str] | None] = [None] * len(rows)
        if odd.any():
            features |= {n: _without_nans(features[n], n, extras) for n in spec.num_names}
        return PredictionColumns(
            row=rows,
            texts={n: found[f"text {n}"].alias(n) for n in TEXTS},
            segments={n: found[f"segment {i}"] for i, n in enumerate(spec.segments)},
            origin=np.zeros(len(rows), np.int64),
            at=at,
            weight=found["weight"].to_numpy(),
            failed=found["failed"].to_numpy(),
            features=features | outputs | {LATENCY: _column(found["latency_ms"])},
            score=found["number"].to_numpy(),
            label=pl.repeat(None, len(rows), dtype=pl.String, eager=True)
            if spec.task == "regression"
            else found["label"],
            extras=extras,
            undeclared=np.zeros(len(rows), np.int64),
        )

    def _contract(self) -> pl.Expr:
        """Whether each line is what the contract asks for, but for its time."""
        environment, model = self._place
        return pl.all_horizontal(
            pl.col("type").eq_missing(pl.lit("prediction")),
            pl.col("model").eq_missing(pl.lit(model)),
            pl.col("environment").fill_null("production") == environment,
            pl.lit(bool(environment and model)),
            pl.col("role").fill_null("live").is_in(["live", "shadow"]),
            pl.col("status").fill_null("ok").is_in(["ok", "error"]),
            pl.col("sampling_fraction").fill_null(1.0).is_between(LEAST_FRACTION, 1.0),
            *(self._right_key(n) for n in KEYS),
            *self._exact(),
            pl.sum_horizontal(self._outputs()).fill_null(0.0).is_finite(),
        )

    def _right_key(self, name: str) -> pl.Expr:
        if self._schema[name] == pl.Float64:
            return (pl.col(name).abs() < LARGEST_EXACT).fill_null(value=False)
        return (pl.col(name) != "").fill_null(value=False)

    def _outputs(self) -> list[pl.Expr]:
        """The numbers beside the features; the sum of a row is finite only if each of them is."""
        found = [pl.col("latency_ms")]
        names = self._fields("prediction", pl.Float64)
        if names:
            found.append(pl.col("prediction").struct.field(names))
        elif self._schema.get("prediction") == pl.Float64:
            found.append(pl.col("prediction"))
        return found

    def _inputs(self) -> list[str]:
        """The numeric features."""
        return self._fields("features", pl.Float64, but=self._levels)

    def _sum(self) -> Iterator[pl.Expr]:
        """Not finite where one of the inputs is not, or where all are huge."""
        if self._inputs():
            yield pl.sum_horizontal(pl.col("features").struct.field(self._inputs())).fill_null(0.0).alias("sum")

    def _exact(self) -> list[pl.Expr]:
        """Numbers that become texts must be exact."""
        told = [n for n in self._fields("features", pl.Float64) if n in self._categorical]
        exprs = [pl.col("features").struct.field(name) for name in told]
        if self.spec.task == "classification":
            if self._kind("prediction", "label") == pl.Float64:
                exprs.append(pl.col("prediction").struct.field("label"))
            elif self._schema.get("prediction") == pl.Float64:
                exprs.append(pl.col("prediction"))
        return [(e.abs() < LARGEST_EXACT).fill_null(value=True) for e in exprs]

    def _kind(self, holder: str, name: str) -> Any:
        """The type of a field in an object, None where it is not there."""
        kind = self._schema.get(holder)
        return next((f.dtype for f in kind.fields if f.name == name), None) if isinstance(kind, pl.Struct) else None

    def _time(self) -> pl.Expr:
        """Epoch seconds of numbers, microseconds of texts; NaN for what is not in a common form."""
        value = pl.col("timestamp")
        if self._schema["timestamp"] == pl.Float64:
            return value.fill_null(np.nan)
        common = pl.when(value.str.contains(COMMON_TIME)).then(value)
        micros = common.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False).to_physical()
        return pl.when(micros.abs() < int(LARGEST_EXACT)).then(micros).cast(pl.Float64).fill_null(np.nan)

    def _features(self) -> Iterator[pl.Expr]:
        plain = self._fields("features", pl.Float64, pl.String, but=self._levels)
        if plain:
            yield pl.col("features").struct.field(plain).name.prefix("feature ")
        for name in self._levels:
            value = pl.col("features").struct.field(name)
            yield self._text(value, name, "features", "true", "false").alias(f"feature {name}")

    @property
    def _levels(self) -> list[str]:
        """Categorical features whose levels are not texts."""
        return [n for n in self._fields("features", pl.Float64, pl.Boolean) if n in self._categorical]

    @property
    def _categorical(self) -> set[str]:
        return {self._fresh["features"][name] for name in self.spec.cat_names}

    def _fields(self, holder: str, *kinds: type[pl.DataType], but: Sequence[str] = ()) -> list[str]:
        """The fields of an object that are of these types."""
        kind = self._schema.get(holder)
        fields = kind.fields if isinstance(kind, pl.Struct) else []
        return [f.name for f in fields if f.dtype in kinds and f.name not in but]

    def _segment(self, name: str, declared: Sequence[str]) -> pl.Expr:
        fresh = self._fresh.get("segments", {}).get(name)
        if fresh is None:
            return pl.lit(None, pl.String)
        value = pl.col("segments").struct.field(fresh)
        known = pl.when(value.is_in(list(declared))).then(value).otherwise(pl.lit(OTHER))
        return pl.when(value.is_not_null()).then(pl.lit(f"{name}=") + known)

    def _answers(self) -> tuple[pl.Expr, pl.Expr]:
        """Score and label."""
        answer = pl.col("prediction")
        score, label = pl.lit(None, pl.Float64), pl.lit(None, pl.String)
        threshold = self.spec.threshold
        if isinstance(self._schema.get("prediction"), pl.Struct):
            if self._kind("prediction", "score") == pl.Float64:
                score = answer.struct.field("score")
            if self._kind("prediction", "label") in (pl.String, pl.Float64, pl.Boolean):
                label = self._text(answer.struct.field("label"), "label", "prediction", "1", "0")
        elif self._schema.get("prediction") == pl.Float64 and (self.spec.task == "regression" or threshold is not None):
            score = answer
        elif self._schema.get("prediction") in (pl.String, pl.Float64, pl.Boolean):
            label = self._text(answer, "prediction", "", "1", "0")
        if threshold is not None and self.spec.task == "classification":
            passed = pl.when(score >= threshold).then(pl.lit("1")).otherwise(pl.lit("0"))
            label = pl.coalesce(label, pl.when(score.is_not_null()).then(passed))
        return score, label

    def _text(self, value: pl.Expr, name: str, holder: str = "", true: str = "", false: str = "") -> pl.Expr:
        """A value as text, as ``label_text`` gives it."""
        kind = self._kind(holder, name) if holder else self._schema[name]
        if kind == pl.Boolean:
            return pl.when(value).then(pl.lit(true)).when(~value).then(pl.lit(false))
        if kind == pl.Float64:
            return value.map_batches(_number_texts, return_dtype=pl.String)
        return value


def _fresh_names(schema: pa.Schema, holder: str) -> dict[str, str]:
    """Names for the fields of an object that Polars takes for nothing but names; it has patterns such as ``^x.*$``."""
    kept = ("score", "label") if holder == "prediction" else ()
    kind = schema.field(holder).type
    fields = (kind.field(i).name for i in range(kind.num_fields))
    return {name: name if name in kept else f"f{at}" for at, name in enumerate(fields)}


def _column(values: pl.Series) -> Column:
    return Column(values, NONE, NONE)


def _without_nans(column: Column, name: str, extras: list[dict[str, str] | None]) -> Column:
    """NaN is not finite, and kept aside as what it was."""
    rows = column.values.is_nan().fill_null(value=False).arg_true().to_numpy().astype(np.int64)
    if not len(rows):
        return column
    for row in rows.tolist():
        extra = extras[row]
        if extra is None:
            extra = extras[row] = {}
        extra[name] = "NaN"
    return Column(column.values.fill_nan(None), rows, NONE)


def _number_texts(values: pl.Series) -> pl.Series:
    distinct = values.drop_nulls().unique()
    texts = pl.Series([label_text(v) for v in distinct.to_list()], dtype=pl.String)
    return values.replace_strict(distinct, texts, return_dtype=pl.String).cast(pl.String)  # floats, if all are null


_plans: dict[tuple[tuple[str, str], bytes], Plan] = {}
