"""Whatever is sent, cut and replayed however: no line is lost, doubled, or holds up another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from monitor.columns import PredictionColumns
from monitor.decode import split_lines
from monitor.fast import read_clean
from monitor.ingest import BATCH_TABLES, Origin
from monitor.service import Service

ARRIVED = NOON.timestamp()
FEATURES = {"x": "numeric", "y": "numeric", "c": "categorical"}
PRIVACY = {"drop": ["y", "trace_id"], "hash": ["prediction_id", "c", "plan"], "hash_key_env": "TELLTALE_TEST_HASH_KEY"}
SAMPLED = {"predictions": 0.7, "features": 0.4}
MODELS = {
    "whole": {"features": FEATURES, "segments": {"plan": ["vip", "free"]}, "threshold": 0.5},
    "private": {"features": FEATURES, "segments": {"plan": ["vip"]}, "privacy": PRIVACY, "sampling": SAMPLED},
    "number": {"features": FEATURES, "task": "regression"},
    "early": {"features": FEATURES, "sampling": SAMPLED},
}
"""All but ``early`` have a layout; a model that nobody declares is sent as well."""
WITH_LAYOUT = ("whole", "private", "number")
PLACE = ("source", "batch", "row", "received")
"""What batches name their rows by, and when all of a batch had arrived: these differ where the batches do."""
_numbers = itertools.count()


@pytest.fixture
def service(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("TELLTALE_TEST_HASH_KEY", "k")
    few = {"ingest.LEAST_LINES": 1, "fast.LEAST_LINES": 1, "fast.SMALLEST_PIECE": 1, "fast.RARE": 0}
    for name, value in few.items():
        monkeypatch.setattr(f"monitor.{name}", value)  # so that a few lines go as columns
    return make_service(models=MODELS)


def give_layouts(service: Service) -> None:
    for name in WITH_LAYOUT:
        answer: dict[str, Any] = {"prediction": [0.5, 1.5] * 50 if name == "number" else ["yes", "no"] * 50}
        table = pl.DataFrame(
            {"x": [float(i % 7) for i in range(100)], "y": [0.0, 1.0] * 50, "c": ["a", "b"] * 50, **answer}
        )
        service.register_reference(name, table, "train")


# What is sent

TEXTS = st.text(max_size=5) | st.sampled_from(["", "vip", "NaN", "\x00", "\ud800", "é", "a" * 300, "'`\\", "@x", "1"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -0.0, 2**63, 2**64, -(2**63) - 1, 10**400, 5e-324, 1e308])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=5)
SOON = st.integers(298, 311).map(lambda seconds: ARRIVED + float(seconds))
"""Whether these are too far ahead depends on when their own message arrived."""
TIMES = (
    st.floats(ARRIVED - 7200, ARRIVED)
    | SOON
    | st.sampled_from(
        [
            ARRIVED,
            ARRIVED + 301,
            -2_208_988_800,
            -0.0005,
            0,
            9e9,
            "2026-03-01T11:59:60Z",
            "1970-01-01T00:00:00+14:00",
            "1900-01-01T00:00:00Z",
        ]
    )
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["prediction", "label", "release", "health"]),
    "model": st.sampled_from([*MODELS, "nobody's"]),
    "version": st.sampled_from(["1", "2", 3]),
    "server": st.sampled_from(["pod-1", "pod-2"]),
    "prediction_id": st.sampled_from(["a", "b", "c", 7]) | st.uuids().map(str),
    "timestamp": TIMES,
    "label": st.sampled_from(["yes", 1, True, None, 0.5]),
    "action": st.sampled_from(["deploy", "retire", "rollback"]),
    "ok": st.booleans(),
    "latency_ms": st.floats(0, 1e4),
    "prediction": st.sampled_from(["yes", "no", 0.25, True, {"score": 0.75}, {"score": {"yes": 0.5, "no": 0.5}}]),
    "features": st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.floats(0, 1), "c": st.sampled_from(["a", "b"])}),
}
MORE = (
    *("environment", "role", "status", "error", "sampling_fraction", "segments", "entity_id", "batch_id", "trace_id"),
    *(
        "outcomes",
        "status_code",
        "resources",
        "servers",
        "by",
        "reason",
        "artifact_digest",
        "at",
        "row",
        "origin",
        "text",
    ),
)
INSIDE = st.dictionaries(st.sampled_from([*FEATURES, "plan", "new"]), VALUES, max_size=4)
ODD = st.dictionaries(st.sampled_from([*KNOWN, *MORE]), VALUES | INSIDE, max_size=3)
SEGMENTS = st.fixed_dictionaries(
    {}, optional={"segments": st.fixed_dictionaries({"plan": st.sampled_from(["vip", "new", 1])})}
)
GOOD = st.fixed_dictionaries(KNOWN).flatmap(lambda event: SEGMENTS.map(lambda more: event | more))
EVENTS = st.one_of(GOOD, GOOD, st.tuples(GOOD, ODD).map(lambda both: both[0] | both[1]))
WRITTEN = EVENTS.map(lambda event: json.dumps(event).encode("utf-8", "surrogatepass"))
CLEAN = st.fixed_dictionaries(
    {
        **{name: KNOWN[name] for name in ("server", "latency_ms", "features")},
        "type": st.just("prediction"),
        "model": st.just("whole"),
        "version": st.sampled_from(["1", "2"]),
        "prediction_id": st.sampled_from(["a", "b", "c"]),
        "timestamp": st.floats(ARRIVED - 7200, ARRIVED) | SOON,
        "prediction": st.sampled_from(["yes", "no"]),
    }
).map(lambda event: json.dumps(event).encode())
"""What goes as columns, where there are enough of them."""
DEEP = st.integers(900, 1100).map(lambda n: b'{"type":"prediction","features":{"x":' + b"[" * n + b"]" * n + b"}}")
RUBBISH = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=20).map(lambda raw: b"{" + raw + b"}"),
    st.tuples(WRITTEN, st.floats(0, 1)).map(lambda cut: cut[0][: int(len(cut[0]) * cut[1])]),
    st.tuples(WRITTEN, WRITTEN).map(b"".join),
    WRITTEN.map(lambda raw: raw.replace(b'"x": ', b'"x": NaN, "x": ')),
    WRITTEN.map(lambda raw: raw.replace(b": ", b":\xff", 1)),
    st.sampled_from([b"", b" \t", b"null", b"[]", b"0", b'{"type":null}', b"\xef\xbb\xbf{}", b"\r", b"{}" * 600_000]),
    DEEP,
)
LINES = st.lists(st.one_of(CLEAN, CLEAN, WRITTEN, RUBBISH), min_size=1, max_size=12)


def filled(lines: Sequence[bytes]) -> int:
    """How many lines there are to account for; empty ones are passed over."""
    return sum(bool(line) and not line.isspace() for line in lines)


def kept(service: Service, source: str) -> dict[str, int]:
    """What is there of a source."""
    of = f"source = '{source}'"
    return service.store.select(
        f"SELECT (SELECT count() FROM dead_letters FINAL WHERE {of}) AS refused, "  # noqa: S608 - names from this file
        f"(SELECT toUInt64(sum(n)) FROM profile_batches FINAL WHERE segment = '' AND {of}) AS profiled, "
        f"(SELECT toUInt64(sum(events)) FROM batch_hours FINAL WHERE {of}) AS counted, "
        f"(SELECT toUInt64(sum(prediction_rows)) FROM batch_hours FINAL WHERE {of}) AS rows_counted, "
        f"(SELECT count() FROM predictions FINAL WHERE {of}) AS rows, "
        f"(SELECT count() FROM labels FINAL WHERE {of}) + (SELECT count() FROM releases FINAL WHERE {of}) "
        f"+ (SELECT count() FROM health FINAL WHERE {of}) AS others"
    ).to_dicts()[0]


SOME = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_every_line_of_any_bytes_is_accounted_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    give_layouts(service)
    as_columns = []

    def noted(*given: Any) -> PredictionColumns | None:
        columns = read_clean(*given)
        as_columns.append(0 if columns is None else len(columns))
        return columns

    monkeypatch.setattr("monitor.ingest.read_clean", noted)

    @SOME
    @given(LINES, st.sampled_from([frozenset[str](), frozenset({"whole", "early"})]), st.booleans())
    def check(lines: list[bytes], allowed: frozenset[str], as_body: bool) -> None:
        source = f"s{next(_numbers)}"
        if as_body:
            body = b"\n".join(lines)
            lines = split_lines(body)
            receipt = service.take(body, source, models=allowed)
        else:
            receipt = service.take_batch(lines, Origin(source, "b", NOON), allowed)
        assert receipt.accepted + len(receipt.rejects) == filled(lines)
        assert len({r.row for r in receipt.rejects}) == len(receipt.rejects)
        assert not [r for r in receipt.rejects if r.reason == "internal_error"]
        held = kept(service, source)
        assert held["refused"] == len(receipt.rejects)
        assert held["profiled"] == held["counted"] == receipt.accepted - held["others"]
        assert held["rows"] == held["rows_counted"] <= held["counted"]

    check()
    assert sum(as_columns) > 0, "nothing went as columns"
    audit = service.audit(datetime(1970, 1, 1, tzinfo=UTC), NOON + timedelta(days=1), repair=False)
    assert audit["disagreements"] == []


def content(service: Service, source: str) -> dict[str, pl.DataFrame]:
    """What the rows and profiles of a source say, whatever batches they came in."""
    found = {}
    for table in ("predictions", "features", "labels", "releases", "health"):
        rows = everything(service, source, table).drop(*PLACE, strict=False)
        found[table] = rows.sort(pl.all().map_elements(str, pl.String))
    found["profiles"] = service.store.select(
        "SELECT environment, model, version, server, role, segment, minute, weight, layout_id, sum(n) AS n, "
        "sum(failed) AS failed, sum(undeclared) AS undeclared, arraySort(arrayZip(tupleElement(sumMap(cells, counts), "
        "1), tupleElement(sumMap(cells, counts), 2))) AS counts FROM profile_batches FINAL "
        "WHERE source = {source:String} GROUP BY ALL ORDER BY ALL",
        source=source,
    )
    return found


def everything(service: Service, source: str, table: str) -> pl.DataFrame:
    """All that a table has of a source."""
    return service.store.select(f"SELECT * FROM {table} FINAL WHERE source = '{source}' ORDER BY ALL")  # noqa: S608 - ours


def take(service: Service, source: str, messages: Sequence[tuple[int, Sequence[bytes]]]) -> None:
    """Take a batch of messages in, as the reader of a partition does."""
    lines = [line for _, some in messages for line in some]
    arrivals = [ARRIVED + offset for offset, some in messages for _ in some]
    arrived = datetime.fromtimestamp(max(arrivals, default=0.0), UTC)
    origin = Origin(source, str(messages[0][0]), arrived, arrivals, messages[-1][0])
    service.take_batch(lines, origin)


def batches(messages: Sequence[Sequence[bytes]], cuts: set[int]) -> list[list[tuple[int, Sequence[bytes]]]]:
    """Messages, by offset, cut before some of them."""
    numbered = list(enumerate(messages))
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(messages)), len(messages)]
    return [numbered[start:end] for start, end in itertools.pairwise([0, *ends])]


DECLARED = EVENTS.filter(lambda event: event.get("model") != "nobody's")
"""The features of others are inferred from what is seen of them first."""
SENT = DECLARED.map(lambda event: json.dumps(event).encode("utf-8", "surrogatepass"))
MESSAGES = st.lists(st.lists(st.one_of(CLEAN, CLEAN, SENT, RUBBISH), min_size=1, max_size=4), min_size=1, max_size=10)
CUTS = st.sets(st.integers(1, 9))


def test_any_batch_boundaries_give_the_same_rows_and_profiles(service: Service) -> None:
    give_layouts(service)

    @SOME
    @given(MESSAGES, CUTS, CUTS)
    def check(messages: list[list[bytes]], some: set[int], others: set[int]) -> None:
        found = []
        for cuts in (some, others):
            source = f"kafka/t/0/{next(_numbers)}"
            for batch in batches(messages, cuts):
                take(service, source, batch)
            found.append(content(service, source))
        for table, rows in found[0].items():
            assert_frame_equal(found[1][table], rows, check_exact=True)

    check()


def test_any_replay_in_any_order_changes_nothing(service: Service) -> None:
    give_layouts(service)

    @SOME
    @given(MESSAGES, CUTS, st.lists(st.integers(0, 9), min_size=1, max_size=4))
    def check(messages: list[list[bytes]], cuts: set[int], again: list[int]) -> None:
        source = f"kafka/t/0/{next(_numbers)}"
        formed = batches(messages, cuts)
        for batch in formed:
            take(service, source, batch)
        before = [everything(service, source, table) for table in BATCH_TABLES]
        for number in again:
            take(service, source, formed[number % len(formed)])
        for table, rows in zip(BATCH_TABLES, before, strict=True):
            assert_frame_equal(everything(service, source, table), rows, check_exact=True)

    check()
