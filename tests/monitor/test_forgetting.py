"""Forgetting somebody: every row is gone for good, and no count changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from broker import Broker
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from typer.testing import CliRunner

from monitor.ingest import Origin
from monitor.service import Service

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
