"""Every query gives the same rows, of the same types, on the embedded engine and on a server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from given import NOON, StillClock, ndjson, prediction
from polars.testing import assert_frame_equal

from detectors.finding import Window
from monitor.config import ClickHouseSpec, Config
from monitor.folding import span
from monitor.ingest import Origin
from monitor.intake import Progress
from monitor.service import Service
from monitor.sources import Place
from monitor.store import query_text
from monitor.store.embedded import EmbeddedStore

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
QUERIES = sorted(
    file.name.removesuffix(".sql") for file in resources.files("monitor.store").joinpath("queries").iterdir()
)
MODELS = {
    "models": {
        "m": {"features": {"x": "numeric", "c": "categorical"}, "segments": {"plan": ["vip"]}, "minimum_rows": 20}
    }
}
SOURCE = "http"
EMPTY = {"unfinished_batches", "unplaced"}
"""Queries for what went wrong, which finds nothing here."""
OTHER = {"batch_labels": {"source": "dead_letters/http", "batch": "none"}, "held_batches": {"source": "kafka/t/0/log"}}
"""What some queries are asked that find nothing with the parameters of all."""
OWN = {"parts"}
"""Queries for how an engine keeps its rows."""


@pytest.fixture
def both(
    tmp_path: Path, clickhouse_spec: ClickHouseSpec, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Service, Service]]:
    """A service on the embedded engine and one on a server, after the same two hours."""
    monkeypatch.setattr("monitor.folding.secrets.randbits", lambda _: 7)
    with ExitStack() as stack:
        services: list[Service] = []
        for server in (None, clickhouse_spec):
            folder = tmp_path / f"data-{len(services)}"
            folder.mkdir()
            store = {"path": folder, "clickhouse": server}
            service = stack.enter_context(Service(Config.model_validate({"store": store, **MODELS}), StillClock()))
            fill(service)
            services.append(service)
        yield services[0], services[1]


def fill(service: Service) -> None:
    """Events of two versions on three servers, a broken line, a reference, and what was measured."""
    receipt = service.take(b"\n".join([ndjson(events()), b"{\xff broken"]), SOURCE)
    assert [reject.reason for reject in receipt.rejects] == ["not_utf8"]
    table = pl.DataFrame({"x": [float(i % 7) for i in range(500)], "c": ["a", "b"] * 250})
    service.register_reference("m", table, "train")
    service.take(ndjson([prediction(i, NOON - HOUR, version="2") for i in range(300, 400)]), SOURCE)
    service.report_progress([Progress(Place("scores", 3), "a-log", NOON)])
    service.write_progress(NOON)
    model = service.registry.get("production", "m")
    for measure in (service.judge.traffic, service.judge.labels):
        for hours in (2, 1):  # one that somebody asks for, and one that is due
            measure(model, Window("production", "m", NOON - hours * HOUR, NOON), NOON)
    service.take(ndjson([prediction(500, NOON - HOUR)]), SOURCE)  # late, so this hour does not hold any more
    for first, last in ((0, 0), (5, 9), (8, 8)):  # offsets are lacking between them, or in two of them
        line = ndjson([prediction(600 + first, NOON - 3 * HOUR)])
        service.take_batch([line], Origin("kafka/t/0/log", str(first), NOON, None, last))
    removed = {
        "environment": ["production"],
        "model": ["m"],
        "what": ["rows"],
        "until": [NOON - DAY],
        "removed": [NOON],
    }
    service.store.insert("removals", pl.DataFrame(removed))
    sealed = {"environment": ["production"], "model": ["m"], "hour": [NOON - 3 * HOUR], "sealed": [NOON]}
    service.store.insert("profile_seals", pl.DataFrame(sealed).with_columns(generation=pl.lit(7, pl.UInt64)))
    service.store.execute(
        "INSERT INTO sealed_batches "
        "SELECT DISTINCT environment, model, toDateTime64(0, 3, 'UTC'), 7, source, batch, -1 FROM features"
    )
    service.store.execute("DELETE FROM predictions WHERE prediction_id = 'p3'")
    forgotten = pl.DataFrame({"environment": ["production"], "model": ["m"], "forgotten": [NOON]})
    service.store.insert("forgotten", forgotten.with_columns(id_hash=pl.lit(hashlib.sha256(b"p9").hexdigest().upper())))
    service.store.execute("DELETE FROM dead_letters WHERE source = 'http'")
    service.take(ndjson([prediction(1, NOON - HOUR, server="pod-9")]) + b"\n{\xff broken\n", "file", key="odd")
    label = {"type": "label", "model": "m", "timestamp": NOON.timestamp(), "prediction_id": "p5", "label": "no"}
    service.take_batch([ndjson([label])], Origin("dead_letters/http", "none", NOON))  # a replay of no letter
    replayed = pl.DataFrame({"source": ["http"], "batch": ["none"], "replayed": [NOON]})
    service.store.insert("replayed_letters", replayed.with_columns(row=pl.lit(0, pl.UInt32)))


def events() -> list[dict[str, Any]]:
    early = NOON - 2 * HOUR
    about = {"model": "m", "timestamp": NOON.timestamp()}
    rows = [prediction(i, early + i * timedelta(seconds=10), segments={"plan": "vip"}) for i in range(200)]
    rows += [prediction(i, NOON - HOUR, version="2", features={"x": "odd", "new": 1}) for i in range(200, 300)]
    labels = [{"type": "label", **about, "prediction_id": f"p{i}", "label": ["yes", "no"][i % 2]} for i in range(150)]
    release = {"type": "release", **about, "version": "2", "action": "deploy", "servers": ["pod-1", "pod-2"]}
    health = {"type": "health", "server": "pod-1", "latency_ms": 1.5, "timestamp": NOON.timestamp() - 60}
    reports = [{**health, "ok": True, "resources": {"telltale_dropped": n}} for n in (3, 4)]
    checks = [{**health, "ok": True}, {**health, "ok": False, "resources": {"cpu": 0.5}}]
    return [*rows, *labels, release, *checks, *reports]


def parameters(service: Service) -> dict[str, Any]:
    rows = service.store.select(
        "SELECT batch, (SELECT any(layout_id) FROM layouts) AS layout_id FROM features WHERE source = 'http' LIMIT 1"
    )
    return {
        "environment": "production",
        "model": "m",
        "start": NOON - 3 * HOUR,
        "end": NOON + HOUR,
        "since": NOON - 3 * HOUR,
        "until": NOON,
        "label_delay_ms": 86_400_000,
        "length_ms": 3_600_000,
        "seconds": 3_600,
        "phase": 0,
        "contrasts_since": NOON - DAY,
        "window_start": NOON,
        "labels_until": NOON + DAY,
        "timezone": "Europe/Berlin",
        "holidays": [20_513],
        "version": "",
        "task": "classification",
        "detector": "",
        "limit": 1000,
        "most": 1000,
        "reason": "",
        "entity_id": "",
        "now": NOON - HOUR,
        "letters_since": NOON - DAY,
        "bases": span(service.store, "production", "m", NOON - 3 * HOUR, NOON + HOUR).bases,
        "hours": [int((NOON - n * HOUR).timestamp()) for n in range(4)],
        **span(service.store, "production", "m", NOON - 3 * HOUR, NOON + HOUR).parameters,
        "source": SOURCE,
        "replay": f"dead_letters/{SOURCE}",
        "hour": NOON - HOUR,
        "key": "odd",
        "lines": 1,
        "first": 0,
        "last": 9,
        **rows.to_dicts()[0],
    }


def test_every_query_and_a_view_give_the_same_on_both(both: tuple[Service, Service]) -> None:
    asked = parameters(both[0])
    for name in sorted({*QUERIES} - OWN):
        expected, got = (service.store.query(name, **asked | OTHER.get(name, {})) for service in both)
        assert name in EMPTY or not expected.is_empty(), name
        if "ORDER BY" not in query_text(name):  # a few rows, in the order in which the engine happens to find them
            expected, got = (frame.sort(frame.columns[:3]) for frame in (expected, got))
        assert_frame_equal(got, expected, check_exact=True)
    sql = "SELECT * FROM model_m ORDER BY timestamp, prediction_id"
    expected, got = (service.store.select(sql) for service in both)
    assert_frame_equal(got, expected, check_exact=True)
    assert expected.height == 405


def test_a_query_without_its_parameters_says_which_it_needs(store: EmbeddedStore) -> None:
    for name in (name for name in QUERIES if "{" in query_text(name)):
        with pytest.raises(ValueError, match="the statement needs a value for"):
            store.query(name)
