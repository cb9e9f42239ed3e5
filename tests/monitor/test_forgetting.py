"""Forgetting somebody: every row is gone for good, and no count changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from broker import Broker
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from typer.testing import CliRunner

from monitor.ingest import Origin
from monitor.service import Service
from monitor.store import StoreError

HOUR = timedelta(hours=1)
ROWS = ("predictions", "features", "labels")


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    service = make_service(models={"m": {"features": {"x": "numeric", "c": "categorical"}}, "other": {}})
    events = [
        prediction(n, NOON - HOUR * (n % 3), model=model, entity_id=f"person-{n % 10}")
        for n in range(60)
        for model in ("m", "other")
    ]
    label = {"type": "label", "model": "m", "label": "yes", "timestamp": NOON.timestamp()}
    service.take(ndjson([*events, *({**label, "prediction_id": f"p{n}"} for n in range(60))]), "http")
    return service


def counts(service: Service, where: str) -> list[int]:
    tables = [service.store.select(f"SELECT count() AS n FROM {t} FINAL WHERE {where}") for t in ROWS]  # noqa: S608 - ours
    return [table["n"][0] for table in tables]


def profiled(service: Service) -> int:
    return int(service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0])


def agrees(service: Service) -> bool:
    return not service.auditor.audit(NOON - 9 * HOUR, NOON + HOUR, NOON + HOUR, repair=False)


def test_a_prediction_is_forgotten_and_stays_counted(service: Service) -> None:
    assert service.forget("m", prediction_id="p7") == {"predictions": 1}
    assert counts(service, "model = 'm' AND prediction_id = 'p7'") == [0, 0, 0]
    assert counts(service, "model = 'm'") == [59, 59, 59]
    assert counts(service, "model = 'other'") == [60, 60, 0]
    assert profiled(service) == 120
    assert agrees(service)
    assert service.forget("m", prediction_id="p7") == {"predictions": 0}
    assert agrees(service)


def test_all_predictions_about_somebody_are_forgotten(service: Service) -> None:
    assert service.forget("m", entity_id="person-3") == {"predictions": 6}
    assert counts(service, "model = 'm'") == [54, 54, 54]
    assert service.forget("m", entity_id="nobody") == {"predictions": 0}
    assert agrees(service)


def test_hashed_ids_are_forgotten_by_the_id_that_people_know(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASH_KEY", "for tests")
    clock.at = NOON
    privacy = {"hash": ["prediction_id", "entity_id"], "hash_key_env": "HASH_KEY"}
    service = make_service(models={"m": {"privacy": privacy}})
    service.take(ndjson([prediction(n, NOON, entity_id=f"person-{n % 2}") for n in range(10)]), "http")
    assert service.forget("m", prediction_id="p4") == {"predictions": 1}
    assert service.forget("m", entity_id="person-1") == {"predictions": 5}
    assert counts(service, "1") == [4, 4, 0]


def test_what_was_forgotten_does_not_come_back_with_a_repair(
    make_service: ServiceMaker, clock: StillClock, broker: Broker
) -> None:
    from monitor.config import KafkaSource
    from monitor.sources.kafka import Kafka

    clock.at = NOON
    topic = broker.topic(partitions=1)
    lines = [ndjson([prediction(n, NOON - HOUR)]) for n in range(30)]
    broker.produce(topic, [{"value": line, "timestamp_ms": int(NOON.timestamp() * 1000)} for line in lines])
    spec = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,))
    service = make_service(sources={"kafka": spec.model_dump()})
    source = Kafka(spec)
    source.poll(5.0)
    log = source._topic_id(topic)  # noqa: SLF001 - the intake would know it
    source.close()
    service.take_batch(lines, Origin(f"kafka/{topic}/0/{log}", "0", NOON, [NOON.timestamp()] * 30, 29))
    service.forget("m", prediction_id="p7")
    service.store.execute("DELETE FROM predictions WHERE prediction_id = 'p8'")
    found = service.auditor.audit(NOON - 9 * HOUR, NOON + HOUR, NOON + HOUR, repair=True)
    assert {d.repair for d in found} == {"taken in again: offsets 0 to 29"}
    assert counts(service, "1") == [29, 29, 0]
    assert counts(service, "prediction_id = 'p7'") == [0, 0, 0]
    assert agrees(service)


def test_the_command_wants_one_name(service: Service, tmp_path: Path) -> None:
    from monitor.cli import app

    service.close()
    config = tmp_path / "telltale.yaml"
    config.write_text("{store: {path: data}}\n")
    named = ["--config", str(config)]
    done = CliRunner().invoke(app, ["forget", "m", *named, "--entity", "person-3"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "6 predictions forgotten")
    for wrong in ([], ["--entity", "a", "--prediction-id", "b"]):
        refused = CliRunner().invoke(app, ["forget", "m", *named, *wrong])
        assert refused.exit_code == 2


def test_features_are_forgotten_where_fewer_predictions_are_kept(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"m": {"sampling": {"predictions": 0.3, "features": 0.6}}})
    service.register_reference("m", pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200}), "train")
    service.take(ndjson([prediction(n, NOON - HOUR, entity_id="e") for n in range(100)]), "http")
    kept, features, _ = counts(service, "1")
    assert 0 < kept == features < 100
    assert service.forget("m", entity_id="e") == {"predictions": kept}
    assert counts(service, "1") == [0, 0, 0]
    assert agrees(service)


@pytest.mark.parametrize("table", ["labels", "features", "predictions", "batch_hours", "batches"])
def test_what_fails_midway_is_finished_the_next_time(
    service: Service, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    execute, insert = service.store.execute, service.store.insert
    fails = iter([True])

    def failing_delete(sql: str) -> None:
        if sql.split()[:3] == ["DELETE", "FROM", table] and next(fails, False):
            raise StoreError("away")
        execute(sql)

    def failing_insert(into: str, rows: pl.DataFrame) -> None:
        insert(into, rows)
        if into == table and next(fails, False):
            raise StoreError("killed")

    monkeypatch.setattr(service.store, "execute", failing_delete)
    monkeypatch.setattr(service.store, "insert", failing_insert)
    with pytest.raises(StoreError):
        service.forget("m", entity_id="person-3")
    assert service.forget("m", entity_id="person-3")["predictions"] > 0
    assert counts(service, "model = 'm'") == [54, 54, 54]
    assert agrees(service)


def test_what_was_forgotten_does_not_come_back(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"m": {}})
    lines = [ndjson([prediction(n, NOON - HOUR)]) for n in range(20)]
    label = {"type": "label", "model": "m", "label": "yes", "timestamp": NOON.timestamp(), "prediction_id": "p7"}
    origin = Origin("kafka/t/0/x", "0", NOON, None, 19)
    service.take_batch(lines, origin)
    service.forget("m", prediction_id="p7")
    service.take_batch(lines, origin)  # an intent that is replayed
    service.import_chunk(b"\n".join([*lines, ndjson([label])]), "k")
    service = make_service(models={"m": {}})
    service.forget_batch(origin)
    service.take_batch(lines, origin)
    assert counts(service, "prediction_id = 'p7'") == [0, 0, 0]
    assert counts(service, "1") == [38, 38, 0]
    assert profiled(service) == 40
    assert agrees(service)


def test_a_layout_that_is_made_later_keeps_the_count_of_what_was_forgotten(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    service = make_service()
    service.take(ndjson([prediction(n, NOON - HOUR, entity_id=f"e{n % 10}") for n in range(300)]), "http")
    service.forget("m", entity_id="e3")
    service.take(ndjson([prediction(n, NOON - 2 * HOUR) for n in range(300, 400)]), "http")
    service.register_reference("m", pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200}), "train")
    assert profiled(service) == 400
    placed = "SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = '' AND layout_id != ''"
    assert service.store.select(placed)["n"][0] == 100
    assert agrees(service)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_batch_that_is_on_its_way_brings_nothing_of_what_is_forgotten_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    insert = service.store.insert
    forgets = iter([True])

    def inserted(table: str, rows: pl.DataFrame) -> None:
        if table == "features" and next(forgets, False):
            service.forget("m", "new-1")
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", inserted)
    bodies = [ndjson([prediction(n, NOON, prediction_id=f"new-{n}") for n in (b, b + 1)]) for b in range(batches)]
    with ThreadPoolExecutor() as threads:
        list(threads.map(service.take, bodies, ["http"] * batches))
    assert counts(service, "prediction_id = 'new-1'") == [0, 0, 0]
    assert counts(service, "prediction_id LIKE 'new-%'")[0] == {1: 1, 3: 4}[batches]
    assert agrees(service)
