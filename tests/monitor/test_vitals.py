"""What can be seen of the service from outside: each number is what really happened."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from processes import wait_until

from dashboards.fleet import server_table
from monitor.intake import Progress
from monitor.metrics import Metrics, Unflushed, show_all
from monitor.service import Service
from monitor.sources import Place
from monitor.store import Store, StoreError
from monitor.store.measured import Measured
from monitor.vitals import Vitals

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def told(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"telltale_{name}", labels)


def dead_letter(row: int, **more: Any) -> pl.DataFrame:
    fields = {"source": "t", "batch": "b", "row": row, "received": NOON, "reason": "r", "detail": "", "raw": b""}
    return pl.DataFrame({**fields, **more}).cast({"row": pl.UInt32})


def lost(events: int, server: str = "pod-1", **more: Any) -> dict[str, Any]:
    """A report of a client."""
    about = {"type": "health", "model": "m", "version": "1", "server": server, "ok": True, "latency_ms": 0.0}
    return {**about, "timestamp": NOON.timestamp(), "resources": {"telltale_dropped": events}, **more}


def test_parts_are_counted_by_table_and_in_the_partition_that_has_the_most(any_store: Store) -> None:
    metrics = Metrics()
    any_store.execute("SYSTEM STOP MERGES dead_letters")
    for row in range(5):
        any_store.insert("dead_letters", dead_letter(row))
    any_store.insert("dead_letters", dead_letter(9, received=NOON - 40 * 24 * HOUR))
    Vitals(any_store, metrics).look(NOON)
    assert told(metrics, "parts", table="dead_letters") == 6
    assert told(metrics, "partition_parts", table="dead_letters") == 5
    assert told(metrics, "parts", table="migrations")
    any_store.execute("TRUNCATE TABLE dead_letters")
    Vitals(any_store, metrics).look(NOON)
    assert told(metrics, "parts", table="dead_letters") in (None, 0)


def test_an_insert_is_timed_by_table_and_one_that_fails_is_counted(store: Store) -> None:
    metrics = Metrics()
    measured = Measured(store, metrics)
    for row in range(3):
        measured.insert("dead_letters", dead_letter(row))
    with pytest.raises(StoreError):
        measured.insert("dead_letters", dead_letter(4).rename({"raw": "nonsense"}))
    assert told(metrics, "insert_seconds_count", table="dead_letters") == 3
    assert (told(metrics, "insert_seconds_sum", table="dead_letters") or 0) > 0
    assert told(metrics, "insert_failures_total", table="dead_letters") == 1
    assert measured.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [3]


def test_a_services_inserts_are_timed(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(1, NOON)]), "http")
    assert told(service.metrics, "insert_seconds_count", table="predictions") == 1
    assert told(service.metrics, "insert_seconds_count", table="labels") is None


def test_predictions_that_came_twice_are_counted(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON + 2 * HOUR
    service = make_service()
    whole = [prediction(n, NOON + n * MINUTE) for n in range(10)]
    service.take(ndjson(whole), "http")
    service.take(ndjson(whole), "http")  # the same batch, so nothing new
    service.take(ndjson(whole[:3]), "http")
    service.take(ndjson(whole[:1]), "http", "another key")
    others = [prediction(0, NOON, version="2"), prediction(0, NOON, role="shadow"), prediction(0, NOON, model="n")]
    service.take(ndjson([*others, prediction(0, NOON + HOUR), prediction(0, NOON - MINUTE)]), "http")
    service.vitals.count_duplicates(NOON + HOUR + 5 * MINUTE)
    assert told(service.metrics, "duplicate_predictions", environment="production", model="m") == 4
    assert told(service.metrics, "duplicate_predictions", environment="production", model="n") == 0
    service.vitals.count_duplicates(NOON + 2 * HOUR)
    assert told(service.metrics, "duplicate_predictions", environment="production", model="m") == 0
    assert told(service.metrics, "duplicate_predictions", environment="production", model="n") is None


def test_what_clients_lost_is_shown_by_pod_and_with_the_servers(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service()
    place = {"environment": "production", "model": "m", "version": "1"}
    check = {"type": "health", "server": "pod-1", "ok": True, "latency_ms": 3.0, "timestamp": NOON.timestamp()}
    body = ndjson([lost(30), lost(4, resources={"cpu": 0.5, "telltale_dropped": 4}), lost(2, "pod-2"), check])
    for _ in range(2):
        service.take(body, "http")  # sent twice, lost once
    service.take(ndjson([lost(7, "pod-3", environment="staging")]), "http")
    clock.at = NOON + MINUTE
    service.vitals.look(clock.at)
    assert told(service.metrics, "client_dropped_events", **place, server="pod-1") == 34
    assert told(service.metrics, "client_dropped_events", **place, server="pod-2") == 2
    assert told(service.metrics, "client_dropped_events", **{**place, "environment": "staging"}, server="pod-3") == 7
    shown = {s["server"]: (s.get("dropped"), s.get("probes")) for s in service.servers()}
    assert shown == {"pod-1": (34, 1), "pod-2": (2, None)}
    page = server_table(service.servers(), clock.at.isoformat())
    assert "lost 34 events" in page
    assert "lost 2 events" in page
    clock.at = NOON + HOUR + MINUTE
    service.vitals.look(clock.at)
    assert told(service.metrics, "client_dropped_events", **place, server="pod-1") is None
    assert not any("dropped" in s for s in service.servers())


def test_a_report_that_waited_on_a_pods_disk_counts_when_it_comes(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([lost(5, timestamp=(NOON - 5 * HOUR).timestamp())]), "http")
    service.vitals.look(NOON + MINUTE)
    labels = {"environment": "production", "model": "m", "version": "1", "server": "pod-1"}
    assert told(service.metrics, "client_dropped_events", **labels) == 5


def test_what_is_not_durable_yet_has_an_age(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service()
    insert, go_on = service.store.insert, threading.Event()

    def slow(table: str, rows: pl.DataFrame) -> None:
        assert go_on.wait(30)
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", slow)
    sending = threading.Thread(target=service.take, args=(ndjson([prediction(1, NOON)]), "http"))
    sending.start()
    wait_until(lambda: (told(service.metrics, "unflushed_seconds") or 0) > 0.1, "an age that grows")
    go_on.set()
    sending.join()
    assert told(service.metrics, "unflushed_seconds") == 0


def test_the_oldest_of_what_is_held_counts() -> None:
    unflushed = Unflushed()
    assert unflushed.longest() == 0
    unflushed.hold("a", -100.0)
    unflushed.hold("b", -5.0)
    longest = unflushed.longest()
    unflushed.release("a")
    assert longest - unflushed.longest() == pytest.approx(95, abs=1)
    unflushed.release("b")
    unflushed.release("b")
    assert unflushed.longest() == 0


def test_whoever_judges_tells_how_far_kafka_is_taken_in_also_where_nobody_reads_it(make_service: ServiceMaker) -> None:
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["scores", "labels"]}
    service: Service = make_service(sources={"kafka": kafka})
    for partition, at in ((0, NOON), (1, NOON - HOUR)):
        service.report_progress([Progress(Place("scores", partition), "first", at)])
        service.write_progress(NOON)
    service.judge_due(NOON + 5 * HOUR)
    assert told(service.metrics, "kafka_taken_in_until_seconds", topic="scores") == (NOON - HOUR).timestamp()
    assert told(service.metrics, "kafka_taken_in_until_seconds", topic="labels") == 0


def test_a_gauge_shows_no_more_than_it_is_told() -> None:
    metrics = Metrics()
    show_all(metrics.parts, {("a",): 1, ("b",): 2})
    show_all(metrics.parts, {("b",): 3, ("c",): 4})
    assert [told(metrics, "parts", table=t) for t in "abc"] == [None, 3, 4]
