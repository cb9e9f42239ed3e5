"""The contract of sources: the same events become the same rows and counts, wherever they come from and are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import urllib3
from broker import Broker
from given import NOON, ServiceMaker, StillClock, prediction
from processes import wait_until

from monitor.batches import Limits
from monitor.config import KafkaSource
from monitor.intake import run_intake
from monitor.running import listening, serve
from monitor.service import Service, import_file
from monitor.sources.kafka import open_kafka

HOUR = timedelta(hours=1)
MODELS = {
    "m": {
        "features": {"x": "numeric", "c": {"kind": "categorical", "levels": ["a", "b"]}},
        "segments": {"plan": ["vip"]},
        "privacy": {"drop": ["secret"]},
    }
}
TABLES: Mapping[str, str] = {
    "predictions": "SELECT * EXCEPT (source, batch, row, received) FROM predictions FINAL ORDER BY prediction_id",
    "features": "SELECT * EXCEPT (source, batch, row) FROM features FINAL ORDER BY prediction_id, timestamp",
    "labels": "SELECT * EXCEPT (source, batch, row, received) FROM labels FINAL ORDER BY prediction_id",
    "releases": "SELECT * EXCEPT (source, batch, row, received) FROM releases FINAL ORDER BY version",
    "health": "SELECT * EXCEPT (source, batch, row, received) FROM health FINAL ORDER BY server",
    "dead_letters": "SELECT reason, detail, hex(raw) AS bytes FROM dead_letters FINAL ORDER BY bytes",
    "profiles": (
        "SELECT version, server, role, segment, minute, weight, sum(n) AS n, sum(failed) AS failed, "
        "sum(undeclared) AS undeclared, sumMap(cells, counts) AS filled FROM profile_batches FINAL "
        "GROUP BY version, server, role, segment, minute, weight "
        "ORDER BY version, server, role, segment, minute, weight"
    ),
}


def lines() -> list[bytes]:
    """Events of all types, odd values, and lines that are none."""
    odd: list[dict[str, Any]] = [
        {"features": {"x": None, "c": "new"}, "segments": {"plan": "vip"}, "sampling_fraction": 0.5},
        {"features": {"x": "NaN", "c": 3, "secret": "s3cret", "more": [1, {"a": None}]}, "role": "shadow"},
        {"features": {"x": 1e308}, "status": "error", "error": "späte Antwort\n'\\", "latency_ms": None},
    ]
    events: list[dict[str, Any]] = [prediction(n, NOON + timedelta(seconds=n)) for n in range(40)]
    events += [prediction(100 + n, NOON, **more) for n, more in enumerate(odd)]
    at = (NOON + HOUR).isoformat()
    events += [
        {
            "type": "label",
            "model": "m",
            "prediction_id": "p1",
            "label": "yes",
            "timestamp": at,
            "outcomes": {"gain": 2},
        },
        {"type": "release", "model": "m", "version": "2", "action": "deploy", "timestamp": at, "servers": ["pod-1"]},
        {"type": "health", "server": "pod-1", "ok": True, "latency_ms": 3, "timestamp": at},
    ]
    broken = [b"garbage", b"\xff\xfe", b"[1", b'{"type": "prediction"}', orjson.dumps(prediction(7, NOON + 9 * HOUR))]
    return [*map(orjson.dumps, events), *broken]


def by_http(service: Service, _: Path, __: Broker) -> None:
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        answer = urllib3.request("POST", f"{url}/v1/events", body=b"\n".join(lines()))
        assert answer.json()["accepted"] == 46


def by_file(service: Service, folder: Path, _: Broker) -> None:
    (folder / "log.ndjson").write_bytes(b"\n".join(lines()))
    assert sum(answer["accepted"] for _, answer in import_file(service, folder / "log.ndjson", 2_000)) == 46


def by_kafka(service: Service, _: Path, broker: Broker) -> None:
    topic = broker.topic()
    arrived = int(service.clock.now().timestamp() * 1000)
    broker.produce(topic, [{"value": line, "timestamp_ms": arrived} for line in lines()])
    spec = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,), group=topic)
    stopped = threading.Event()
    arguments = (lambda: open_kafka(spec), service, service.metrics, stopped, Limits(rows=7, seconds=0.1))
    thread = threading.Thread(target=run_intake, args=arguments)
    thread.start()
    try:
        wait_until(lambda: _done(service) == 51, "51 lines")
    finally:
        stopped.set()
        thread.join()


def _done(service: Service) -> float:
    samples = (s for metric in service.metrics.registry.collect() for s in metric.samples)
    return sum(
        s.value for s in samples if s.name in ("telltale_events_accepted_total", "telltale_events_rejected_total")
    )


@pytest.mark.parametrize("send", [by_http, by_file, by_kafka])
@pytest.mark.parametrize("on_server", [False, True], ids=["embedded", "server"])
def test_the_same_events_become_the_same_rows_and_counts(
    send: Callable[[Service, Path, Broker], None],
    on_server: bool,
    request: pytest.FixtureRequest,
    broker: Broker,
    make_service: ServiceMaker,
    clock: StillClock,
    tmp_path: Path,
) -> None:
    clock.at = NOON + 2 * HOUR
    expected = kept_of_one_batch(make_service(models=MODELS))
    store: dict[str, Any] = {"path": tmp_path / "other"}
    if on_server:
        store["clickhouse"] = request.getfixturevalue("clickhouse_spec")
    service = make_service(store=store, models=MODELS)
    prepare(service)
    send(service, tmp_path, broker)
    for table, rows in kept(service).items():
        assert rows == expected[table], table


def kept_of_one_batch(service: Service) -> dict[str, list[dict[str, Any]]]:
    prepare(service)
    service.take(b"\n".join(lines()), "http")
    return kept(service)


def prepare(service: Service) -> None:
    table = pl.DataFrame({"x": [float(n % 9) for n in range(400)], "c": ["a", "b"] * 200})
    service.register_reference("m", table, "train")


def kept(service: Service) -> dict[str, list[dict[str, Any]]]:
    rows = {name: service.store.select(sql).to_dicts() for name, sql in TABLES.items()}
    assert all(rows.values())
    assert "s3cret" not in repr([r for name, table in rows.items() if name != "dead_letters" for r in table])
    return {name: [_plain(row) for row in table] for name, table in rows.items()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """NaN equals NaN here."""
    return {name: repr(value) if isinstance(value, float | list) else value for name, value in row.items()}
