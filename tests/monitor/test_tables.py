"""A table is as many lines: whatever it holds becomes what the same events as lines become."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from arrow import stream, table_of
from given import NOON, ServiceMaker, ndjson, prediction
from held_rows import by_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor import arrow_stream
from monitor.arrow_stream import read_head, read_table
from monitor.columns import prediction_columns
from monitor.config import ModelSpec
from monitor.decode import decode
from monitor.service import Service
from monitor.tables import BadTableError, LargeTableError, Mixed, TableLines, apart

ARRIVED = 1_800_000_000.0
PLACE = ("production", "m")
FEATURES = {"x": "numeric", "y": "numeric", "c": "categorical", "role": "categorical"}
SPECS = [
    ModelSpec.model_validate({"features": FEATURES, **more})
    for more in ({}, {"segments": {"plan": ["vip", "3"]}}, {"threshold": 0.5}, {"task": "regression"})
]
EVENT: dict[str, Any] = {
    "type": "prediction",
    "model": "m",
    "version": "1",
    "server": "pod",
    "prediction_id": "p",
    "timestamp": ARRIVED - 10,
    "features": {"x": 1.5, "y": 2, "c": "a", "role": "b"},
    "prediction": {"score": 0.25, "label": "no"},
    "latency_ms": 3.5,
}


def of_lines(lines: Sequence[bytes], spec: ModelSpec) -> tuple[dict[int, dict[str, Any]], list[tuple[Any, ...]]]:
    """The rows that lines become, and what is refused of them."""
    decoded = decode(lines, ARRIVED)
    events = decoded.predictions.get(PLACE, [])
    refused = [(r.row, r.reason, r.detail) for r in decoded.rejects]
    return (by_row(prediction_columns(events, spec)) if events else {}), refused


def of_table(body: bytes, spec: ModelSpec) -> tuple[dict[int, dict[str, Any]], list[tuple[Any, ...]], int]:
    """The same of a table, and how many of its rows became columns at once."""
    events = TableLines(body).events
    clean: dict[int, dict[str, Any]] = {}
    for place, rows in events.places():
        if place == PLACE:
            clean = by_row(events.some(rows).predictions(rows, np.full(len(rows), ARRIVED), place, spec))
    others = [b"" if row in clean else line for row, line in enumerate(events.lines())]
    slow, refused = of_lines(others, spec)
    return clean | slow, refused, len(clean)


def held_equal(body: bytes, events: Sequence[dict[str, Any]], spec: ModelSpec) -> int:
    """How many rows became columns at once, after all were found to be what the events as lines become."""
    rows, refused, clean = of_table(body, spec)
    assert (rows, refused) == of_lines([json.dumps(e).encode() for e in events], spec)
    return clean


def without_nulls(value: Any) -> Any:
    """As a table has it: a null is a key that is not there, and so is an object without keys."""
    if not isinstance(value, dict):
        return value
    kept = {name: without_nulls(v) for name, v in value.items()}
    return {name: v for name, v in kept.items() if (v is not None and v != {}) or name == "label"}


def event(**fields: Any) -> dict[str, Any]:
    return {**EVENT, **fields}


def features(**values: Any) -> dict[str, Any]:
    return {**EVENT["features"], **values}


TEXTS = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(
    ["", "null", "\x00", "é", "NaN", "3", "vip"]
)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 2.0**53, 1e300, 5e-324])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 3, 2**53 + 1, -(2**53)])
COLUMNS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.string_view(), TEXTS),
    (pa.dictionary(pa.int8(), pa.string()), TEXTS),
    (pa.float64(), FLOATS),
    (pa.int64(), WHOLE),
    (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
    (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False), max_size=2)),
]
SCALARS = st.sampled_from(COLUMNS)
FIXED: dict[str, list[tuple[Any, st.SearchStrategy[Any]]]] = {
    "type": [(pa.string(), st.sampled_from(["prediction", "prediction", "label", "none"]))],
    "model": [(pa.string(), st.sampled_from(["m", "m", "m", "other", ""])), (pa.int64(), st.just(3))],
    "timestamp": [
        (pa.float64(), st.sampled_from([ARRIVED, ARRIVED - 0.25, ARRIVED + 301, 1e300, math.nan])),
        (pa.int64(), st.sampled_from([int(ARRIVED), -(2**62)])),
        (pa.string(), st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456+02:00", "soon", ""])),
    ],
    "role": [(pa.string(), st.sampled_from(["live", "shadow", "", "x"])), (pa.int64(), st.just(1))],
    "status": [(pa.string(), st.sampled_from(["ok", "error", "", "x"])), (pa.bool_(), st.booleans())],
    "environment": [(pa.string(), st.sampled_from(["production", "", "x"])), (pa.int64(), st.just(1))],
    "sampling_fraction": [(pa.float64(), st.sampled_from([1.0, 0.1, 1e-6, 1e-7, 2.0])), (pa.bool_(), st.booleans())],
}
REQUIRED = ("type", "model", "version", "server", "prediction_id", "timestamp")
OPTIONAL = ("environment", "role", "status", "error", "entity_id", "trace_id", "sampling_fraction", "latency_ms")
INNER = {
    "features": ("x", "y", "c", "role", "new"),
    "segments": ("plan", "else"),
    "prediction": ("score", "label", "more"),
}


Drawn = tuple[pa.Array, list[Any]]


@st.composite
def columns(draw: st.DrawFn, name: str, usual: object, rows: int) -> Drawn:
    """A column of some type, in which values may be missing, and the values."""
    if usual is not None and draw(st.booleans()):
        return pa.array([usual] * rows), [usual] * rows
    kind, values = draw(st.sampled_from(FIXED.get(name, COLUMNS)))
    drawn = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
    return pa.array(drawn, kind), drawn


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[dict[str, Any]]]:
    """A table and its events."""
    rows = draw(st.integers(1, 5))
    plain = [*REQUIRED, *draw(st.sets(st.sampled_from(OPTIONAL)))]
    given: dict[str, Drawn] = {name: draw(columns(name, EVENT.get(name), rows)) for name in plain}
    held: dict[str, dict[str, Drawn]] = {}
    for holder, names in INNER.items():
        if holder == "prediction" and draw(st.booleans()):
            given[holder] = draw(columns(holder, None, rows))
        else:
            chosen = draw(st.sets(st.sampled_from(names)))
            held[holder] = {n: draw(columns(n, EVENT.get(holder, {}).get(n), rows)) for n in chosen}
    table = {name: array for name, (array, _) in given.items()}
    for holder, inner in held.items():
        arrays = {name: array for name, (array, _) in inner.items()}
        if draw(st.booleans()):
            table |= {f"{holder}.{name}": array for name, array in arrays.items()}
        elif arrays:
            table[holder] = pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
    events = []
    for row in range(rows):
        objects = {holder: {n: values[row] for n, (_, values) in inner.items()} for holder, inner in held.items()}
        events.append(without_nulls({name: values[row] for name, (_, values) in given.items()} | objects))
    return pa.table(table), events


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(SPECS), tables(), st.sampled_from([None, "lz4", "zstd"]), st.sampled_from([1, 2, None]))
def test_any_table_becomes_what_its_events_become_as_lines(
    spec: ModelSpec, drawn: tuple[pa.Table, list[dict[str, Any]]], compression: str | None, rows: int | None
) -> None:
    table, events = drawn
    held_equal(stream(table, rows, compression), events, spec)


UTC_TIMES = [datetime(2026, 1, 1, 0, 0, 0, 250_000, UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)]


@pytest.mark.parametrize(
    ("name", "column", "as_json"),
    [
        ("timestamp", pa.array(UTC_TIMES, pa.timestamp("us", "UTC")), [t.isoformat() for t in UTC_TIMES]),
        ("timestamp", pa.array(UTC_TIMES, pa.timestamp("ms", "Asia/Kolkata")), [UTC_TIMES[0].isoformat(), -0.001]),
        ("timestamp", pa.array([1, -2], pa.timestamp("s", "+02:00")), [1, -2]),
        ("timestamp", pa.array([1_500, -1], pa.timestamp("ns", "UTC")), [1e-6, -1e-6]),
        ("timestamp", pa.array([5, None], pa.timestamp("us", "Nowhere/AtAll")), [5e-6, None]),
        ("timestamp", pa.array([1, 2], pa.int32()), [1, 2]),
        ("timestamp", pa.array([Decimal("1.5"), Decimal("2.25")]), [1.5, 2.25]),
        ("version", pa.array([3, 2**63], pa.uint64()), ["3", str(2**63)]),
        ("version", pa.array([1.0, 2.5], pa.float32()), ["1", "2.5"]),
        ("prediction_id", pa.array([Decimal(7), Decimal(10**20)], pa.decimal128(38, 0)), ["7", str(10**20)]),
        ("features.x", pa.array([0.1, None], pa.float32()), [float(np.float32(0.1)), None]),
        ("features.x", pa.array([1.5, 2.5], pa.float16()), [1.5, 2.5]),
        ("features.x", pa.array([2**53 + 1, -(2**63)]), [2**53 + 1, -(2**63)]),
        ("features.x", pa.array([Decimal("0.1"), Decimal("-1e-9")], pa.decimal128(20, 10)), [0.1, -1e-9]),
        ("features.x", pa.array([Decimal("0.1"), None], pa.decimal256(60, 30)), [0.1, None]),
        ("features.c", pa.array([7, 2**53 + 1]), ["7", str(2**53 + 1)]),
        ("features.c", pa.array([True, None]), ["true", None]),
        ("features.c", pa.array([0.5, 3.0]), ["0.5", "3"]),
        ("features.c", pa.array(["é", None]).dictionary_encode(), ["é", None]),
        ("features.c", pa.array(["é", "x" * 50], pa.string_view()), ["é", "x" * 50]),
        ("features.c", pa.array([date(2026, 1, 31), None]), ["2026-01-31", None]),
        ("prediction.label", pa.array([1, 0]), ["1", "0"]),
        ("prediction.label", pa.array([True, False]), ["1", "0"]),
        ("prediction.score", pa.array([1, 0], pa.int8()), [1, 0]),
        ("segments.plan", pa.array([3, 4]), ["3", "4"]),
        ("entity_id", pa.array([7, None]), ["7", None]),
        ("unheard_of", pa.array([b"\xff", None]), [None, None]),
        ("label", pa.nulls(2), [None, None]),
        ("servers", pa.array([None, None], pa.list_(pa.string())), [None, None]),
    ],
)
def test_every_type_means_what_json_would(name: str, column: pa.Array, as_json: list[Any]) -> None:
    base = event(prediction={"score": 0.25}, features=features())
    events = [json.loads(json.dumps(base)) for _ in as_json]
    for e, value in zip(events, as_json, strict=True):
        holder, _, inner = name.partition(".")
        if inner:
            e.setdefault(holder, {})[inner] = value
        else:
            e[name] = value
    flat = {n: v for n, v in base.items() if not isinstance(v, dict)}
    flat |= {f"{n}.{k}": v for n, d in base.items() if isinstance(d, dict) for k, v in d.items()}
    columns = {n: pa.array([v] * 2) for n, v in flat.items()} | {name: column}
    missing = name == "timestamp" and None in as_json
    for spec in SPECS[:3]:
        assert held_equal(stream(pa.table(columns)), [without_nulls(e) for e in events], spec) == 2 - missing


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("timestamp", pa.array([datetime(2026, 1, 1)], pa.timestamp("us")), "bad_timestamp"),  # noqa: DTZ001 - no zone
        ("timestamp", pa.array([2**62], pa.timestamp("s", "UTC")), "bad_timestamp"),
        ("timestamp", pa.array([-(2**63) + 1], pa.timestamp("ns", "UTC")), "bad_timestamp"),
        ("timestamp", pa.array([date(2026, 1, 1)]), "bad_timestamp"),
        ("timestamp", pa.array([None], pa.timestamp("us", "UTC")), "missing_key"),
        ("timestamp", pa.array([ARRIVED + 1000]), "in_the_future"),
        ("version", pa.array([True]), "bad_field"),
        ("version", pa.array([2.0**53]), "bad_field"),
        ("server", pa.array([None], pa.string()), "missing_key"),
        ("environment", pa.array([1]), "bad_field"),
        ("role", pa.array(["boss"]), "bad_field"),
        ("type", pa.nulls(1), "unknown_type"),
        ("features", pa.array([1.5]), "bad_field"),
        ("error", pa.array(["x" * 2_000_000]), "too_large"),
    ],
)
def test_a_row_is_refused_for_the_reason_that_its_line_would_be(name: str, column: pa.Array, reason: str) -> None:
    columns = {n: pa.array([v]) for n, v in EVENT.items()}
    rows, refused, _ = of_table(stream(pa.table({**columns, name: column})), SPECS[0])
    assert not rows
    assert [(row, why) for row, why, _ in refused] == [(0, reason)]


@pytest.mark.parametrize("other", ["polars", "polars, new types", "pandas"])
def test_tables_that_other_libraries_write(other: str) -> None:
    events = [event(prediction_id=f"p{n}") for n in range(5)]
    if other == "pandas":
        flat = [{f"{k}.{i}": w for i, w in v.items()} if isinstance(v, dict) else {k: v} for k, v in EVENT.items()]
        frame = table_of([{k: v for part in flat for k, v in part.items()}]).to_pandas().loc[[0] * 5]
        frame["prediction_id"] = [f"p{n}" for n in range(5)]
        body = stream(pa.Table.from_pandas(frame))
    else:
        level = pl.CompatLevel.newest() if other.endswith("new types") else pl.CompatLevel.oldest()
        body = pl.DataFrame(events).write_ipc_stream(None, compat_level=level).getvalue()
    assert held_equal(body, events, SPECS[0]) == 5


def test_all_other_kinds_of_events_may_be_rows() -> None:
    at = {"timestamp": ARRIVED}
    events: list[dict[str, Any]] = [
        {"type": "label", "model": "m", "prediction_id": "a", "label": "yes", "outcomes": {"cost": 1.5}, **at},
        {"type": "label", "model": "m", "prediction_id": "b", "label": None, **at},
        {
            "type": "release",
            "model": "m",
            "version": "2",
            "action": "deploy",
            "servers": ["a", "b"],
            "label": None,
            **at,
        },
        {"type": "health", "server": "a", "ok": True, "latency_ms": 2.5, "status_code": 200, "label": None, **at},
    ]
    lines = TableLines(stream(table_of(events))).events.lines()
    assert [json.loads(line) for line in lines] == events


def dirty(count: int) -> list[dict[str, Any]]:
    rng = random.Random(3)
    events = []
    for n in range(count):
        more: dict[str, Any] = {"features": {"x": rng.choice([0.5, 1.5, math.nan, None]), "c": rng.choice("abc")}}
        if rng.random() < 0.1:
            more["features"]["new"] = "w"
        if rng.random() < 0.05:
            more[rng.choice(["version", "prediction_id", "role"])] = ""
        events.append(without_nulls(prediction(n, NOON, model=rng.choice("mmmk"), **more)))
    return events


def stored(service: Service) -> dict[str, list[str]]:
    """What is in the store, but for where it came from; as texts, as NaN is not like itself."""
    found = {}
    for table in ("predictions", "features", "profile_batches", "dead_letters", "batch_hours"):
        rows = service.store.select(f"SELECT * EXCEPT (source, batch) FROM {table} FINAL").to_dicts()  # noqa: S608 - ours
        for row in rows:
            row.pop("received", None)
            if "raw" in row:
                row["raw"] = sorted(json.loads(row["raw"]).items())
        found[table] = sorted(map(str, rows))
    return found


def test_the_store_holds_the_same_of_a_table_and_of_lines(make_service: ServiceMaker, tmp_path: Path) -> None:
    held = []
    events = dirty(300)
    for way in ("lines", "table"):
        features = {"x": "numeric", "c": "categorical"}
        sections = {"models": {n: {"features": features} for n in "mk"}, "store": {"path": tmp_path / way}}
        service = make_service(**sections)
        for n in "mk":
            service.register_reference(n, pl.DataFrame({"x": [0.5, 1.5] * 200, "c": ["a", "b"] * 200}), "first")
        body = ndjson_with_nan(events) if way == "lines" else stream(table_of(events), 77)
        receipt = service.take(body, "http")
        held.append((stored(service), receipt.accepted, [(r.row, r.reason, r.detail) for r in receipt.rejects]))
    assert held[0] == held[1]
    assert held[0][1] > 250


def ndjson_with_nan(events: Sequence[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(e).encode() for e in events)


def test_tables_among_lines_keep_the_numbers_of_all_rows(make_service: ServiceMaker) -> None:
    from monitor.ingest import Origin

    service = make_service()
    table = stream(table_of([prediction(n, NOON) for n in range(3, 43)]))
    broken = TableLines(table.replace(b"pod-1", b"pod-\xff"))
    garbage = TableLines(table[:400])
    assert (len(broken), len(garbage)) == (40, 1)
    parts = [[b"", b"not json"], TableLines(table), garbage, broken, ndjson([prediction(50, NOON)]).split(b"\n")]
    lines = Mixed(parts)
    assert len(lines) == 84
    receipt = service.take_batch(lines, Origin("here", "0", NOON))
    assert receipt.accepted == 41
    assert sorted((r.row, r.reason) for r in receipt.rejects) == [(1, "not_json"), (42, "bad_table"), (43, "bad_table")]
    rows = service.store.select("SELECT row, prediction_id FROM predictions FINAL ORDER BY row").rows()
    assert rows == [*((n + 2, f"p{n + 3}") for n in range(40)), (83, "p50")]


def test_a_fault_of_ours_with_a_row_costs_that_row_alone(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monitor import ingest

    service = make_service()
    real = prediction_columns

    def failing(events: Any, spec: Any) -> Any:
        if any(e["prediction_id"] == "p7" for e in events):
            raise ZeroDivisionError("planted")
        return real(events, spec)

    monkeypatch.setattr(ingest, "prediction_columns", failing)
    receipt = service.take(stream(table_of([prediction(n, NOON) for n in range(20)])), "http")
    assert (receipt.accepted, [(r.row, r.reason) for r in receipt.rejects]) == (19, [(7, "internal_error")])


def _two_columns() -> pa.Table:
    return pa.Table.from_arrays([pa.array(["m"]), pa.array(["k"])], names=["model", "model"])


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pa.table({"features.x": pa.array([b"1"])}), "column 'features.x' is of the type binary"),
        (pa.table({"latency_ms": pa.array([1], pa.duration("ms"))}), "column 'latency_ms' is of the type duration"),
        (pa.table({"features": pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64()))}), "column 'features'"),
        (pa.table({"features.x": pa.array([[[1]]])}), "column 'features.x' is of the type list<item: list"),
        (pa.table({"features.x": pa.array([[[[[1]]]]])}), "column 'item' is nested too deeply"),
        (pa.table({"features.x": [1], "features": [{"x": 2}]}), "it has two columns 'features.x'"),
        (
            pa.table({"prediction": [1], "prediction.score": [2]}),
            "it has 'prediction' both as a value and as an object",
        ),
        (_two_columns(), "it has two columns 'model'"),
    ],
)
def test_a_table_that_no_event_can_be_in_is_refused(table: pa.Table, reason: str) -> None:
    with pytest.raises(BadTableError, match="^" + reason.replace("(", r"\(")):
        TableLines(stream(table)).check()


def test_tables_that_would_be_too_large_are_refused_before_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = pa.schema([(f"features.f{n}", pa.bool_()) for n in range(10_001)]).empty_table()
    with pytest.raises(LargeTableError, match="it has 10001 columns; at most 10000"):
        read_head(stream(columns))
    with pytest.raises(LargeTableError, match=r"its schema has \d+ bytes"):
        read_head(stream(pa.schema([("x" * 5_000_000, pa.int8())]).empty_table()))
    monkeypatch.setattr(arrow_stream, "LARGEST_TABLE", 100_000)
    monkeypatch.setattr("monitor.table_events.LARGEST_TABLE", 100_000)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int8()), pa.array(["x" * 1000]))
    view = struct.pack("<i4sii", 1000, b"xxxx", 0, 0)
    views = pa.Array.from_buffers(pa.string_view(), 1000, [None, pa.py_buffer(view * 1000), pa.py_buffer(b"x" * 1000)])
    bits = pa.array([[True] * 1000] * 100)
    for column in (repeated, views, bits):
        body = stream(pa.table({"error": column}))
        assert read_head(body).size < 100_000
        with pytest.raises(LargeTableError, match="more than 100000 bytes as lines"):
            TableLines(body).check()
    for compression in ("lz4", "zstd"):
        body = stream(pa.table({"error": ["x" * 1000] * 200}), compression=compression)
        with pytest.raises(LargeTableError, match="more than 100000 bytes as lines"):
            read_head(body)
    with pytest.raises(LargeTableError, match="more than 100000 bytes as lines"):
        read_head(stream(pa.table({"n": pa.nulls(20_000)})))


def test_no_bytes_do_more_than_raise() -> None:
    table = table_of([event(entity_id=None if n % 2 else "é", servers=["a"]) for n in range(60)])
    table = table.append_column("features.d", pa.array(["x", None] * 30).dictionary_encode())
    streams = [stream(table, 25, compression) for compression in (None, "zstd", "lz4")]
    rng = random.Random(5)
    read = 0
    for n in range(600):
        spoilt = bytearray(streams[n % 3])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(spoilt) if n % 2 else 3000)
            spoilt[at : at + 4] = rng.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\x7f", rng.randbytes(4), rng.randbytes(1) + spoilt[at + 1 : at + 4]]
            )
        lines = TableLines(bytes(spoilt))
        try:
            read += len(lines.events.lines()) == len(lines)
        except BadTableError:
            assert len(lines) >= 0
    assert 0 < read < 600


def test_lines_and_tables_are_told_apart() -> None:
    table = TableLines(stream(table_of([event()] * 2)))
    assert apart([b"a"]) == ([b"a"], [])
    assert apart(Mixed([[b"a"], table, [b"b"]])) == ([b"a", b"", b"", b"b"], [(1, table)])
    assert read_table(table.raw).num_rows == 2
