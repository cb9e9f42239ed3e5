"""The auditor: silent where all is as it was counted, and nothing that is planted escapes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from broker import Broker
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from monitor.audit import AuditError
from monitor.batches import Batch
from monitor.folding import fold, mark
from monitor.ingest import Origin
from monitor.service import Service
from monitor.sources import Place

HOUR = timedelta(hours=1)
MODELS = {
    "m": {
        "features": {"x": "numeric", "c": "categorical"},
        "segments": {"plan": ["vip"]},
        "sampling": {"features": 1.0, "predictions": 0.5},
    },
    "sampled": {"features": {"x": "numeric"}, "sampling": {"features": 0.1}},
}


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    """A service that has taken in, over HTTP, predictions of two models, labels, and lines that are none."""
    clock.at = NOON
    service = make_service(models=MODELS)
    service.register_reference("m", pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200}), "train")
    service.register_reference("sampled", pl.DataFrame({"x": [1.0, 2.0] * 200}), "train")
    early = NOON - timedelta(minutes=90)
    for batch in range(3):
        events = [
            prediction(batch * 100 + n, early + timedelta(seconds=40 * n), segments={"plan": "vip"}, model=model)
            for n in range(100)
            for model in MODELS
        ]
        label = {"type": "label", "model": "m", "prediction_id": "p1", "label": "yes", "timestamp": NOON.timestamp()}
        service.take(ndjson([*events, label]) + b"\nnot json\n", "http", key=str(batch))
    return service


def audited(service: Service, *, repair: bool = False) -> list[dict[str, Any]]:
    end = NOON + timedelta(minutes=1)  # the batches came in at noon
    return [d.to_dict() for d in service.auditor.audit(NOON - 3 * HOUR, end, NOON + HOUR, repair=repair)]


def deleted(service: Service, table: str, where: str = "1") -> None:
    service.store.execute(f"DELETE FROM {table} WHERE {where}")  # noqa: S608 - the tests' own words


def test_what_was_taken_in_agrees_with_itself(service: Service) -> None:
    assert audited(service) == []
    fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
    assert audited(service) == []
    service.take(ndjson([prediction(900, NOON - HOUR)]), "http")  # late
    assert audited(service) == []


def test_a_layout_made_later_changes_no_count(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service()
    service.take(ndjson([prediction(n, NOON - HOUR) for n in range(300)]), "http")
    service.register_reference("m", pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200}), "train")
    assert audited(service) == []


@pytest.mark.parametrize(
    ("table", "where", "what"),
    [
        ("profile_batches", "model = 'm' AND segment = '' AND server = 'pod-1'", {"profiles"}),
        ("predictions", "model = 'sampled' AND prediction_id = 'p7'", {"prediction rows"}),
        ("features", "model = 'm' AND prediction_id = 'p7'", {"feature rows"}),
        ("dead_letters", "1", {"dead letters"}),
        ("batch_hours", "model = 'm'", {"predictions counted by hour", "profiles", "prediction rows", "feature rows"}),
    ],
)
def test_what_is_lost_is_found(service: Service, table: str, where: str, what: set[str]) -> None:
    deleted(service, table, where)
    found = audited(service)
    assert {d["what"] for d in found} == what
    assert all(d["found"] != d["expected"] for d in found)


def test_a_sum_that_lost_something_is_found_and_made_anew(service: Service) -> None:
    fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
    deleted(service, "profile_hours", "server = 'pod-1' AND segment = ''")
    found = audited(service, repair=True)
    assert {(d["what"], d["model"]) for d in found} == {("sum of an hour", "m")}
    assert audited(service) == []


def test_profiles_are_made_again_from_rows_that_are_all_kept(service: Service) -> None:
    rows = "SELECT * FROM profile_batches FINAL ORDER BY ALL"
    before = service.store.select(rows)
    deleted(service, "profile_batches", "model = 'm' AND server = 'pod-1'")
    twice = before.filter(pl.col("model") == "m").head(1).with_columns(version=pl.lit("no such version"))
    service.store.insert("profile_batches", twice)
    mark(service.store, twice)
    found = audited(service, repair=True)
    assert {d["repair"] for d in found} == {"profiles made again from the rows"}
    assert audited(service) == []
    assert_frame_equal(service.store.select(rows), before)


def test_what_cannot_be_repaired_is_said(service: Service) -> None:
    deleted(service, "profile_batches", "model = 'sampled' AND server = 'pod-1'")
    found = audited(service, repair=True)
    assert {d["repair"].partition(" its")[0] for d in found} == {"not repaired: it came from no log, and of"}
    assert audited(service) != []


def test_a_batch_that_is_being_taken_in_is_no_disagreement_yet(service: Service) -> None:
    deleted(service, "batches", "1")
    deleted(service, "batch_hours", "1")
    end = NOON + timedelta(minutes=1)
    assert service.auditor.audit(NOON - 3 * HOUR, end, NOON, repair=False) == []
    found = audited(service)
    assert {d["what"] for d in found} >= {"profiles of a batch never finished"}


def test_offsets_that_were_jumped_over_are_found(service: Service) -> None:
    for first, last in ((0, 9), (10, 19), (25, 30)):
        lines = ndjson([prediction(first * 100 + n, NOON - HOUR) for n in range(last - first + 1)]).split(b"\n")
        service.take_batch(lines, Origin("kafka/t/0/log", str(first), NOON, None, last))
    gaps = [d for d in audited(service) if d["what"] == "messages taken in"]
    assert [(d["source"], d["lacking"], d["expected"]) for d in gaps] == [("kafka/t/0/log", (20, 24), 5)]


def test_offsets_that_were_taken_in_twice_are_found(service: Service) -> None:
    for first, last in ((0, 9), (4, 7), (5, 12), (13, 14)):
        lines = ndjson([prediction(n, NOON - HOUR) for n in range(first, last + 1)]).split(b"\n")
        service.take_batch(lines, Origin("kafka/t/0/log", str(first), NOON, None, last))
    twice = [(d["what"], d["batch"], d["found"], d["lacking"]) for d in audited(service)]
    assert twice == [("messages taken in twice", "5", 5, (10, 12)), ("messages taken in twice", "4", 4, None)]


def test_two_do_not_repair_at_the_same_time(service: Service) -> None:
    with service._repairing(NOON), pytest.raises(AuditError, match="another process repairs"):  # noqa: SLF001 - what another process would hold
        service.audit(repair=True)
    assert service.audit(repair=False)["disagreements"] == []


def test_the_command_says_what_disagrees(service: Service, tmp_path: Path) -> None:
    from monitor.cli import app

    deleted(service, "dead_letters")
    service.close()
    (tmp_path / "telltale.yaml").write_text("store: {path: data}\n")
    asked = [
        "audit",
        "--config",
        str(tmp_path / "telltale.yaml"),
        "--from",
        "2026-03-01T09:00Z",
        "--to",
        "2026-03-01T12:01Z",
    ]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert "2026-03-01 09:00Z to 2026-03-01 12:01Z" in result.output
    assert "letters" in result.output


def test_batches_from_kafka_are_taken_in_again(make_service: ServiceMaker, clock: StillClock, broker: Broker) -> None:
    from monitor.config import KafkaSource
    from monitor.sources.kafka import Kafka

    clock.at = NOON
    topic = broker.topic(partitions=1)
    events = [prediction(n, NOON - HOUR) for n in range(40)]
    broker.produce(
        topic,
        [{"value": ndjson(events[i : i + 2]), "timestamp_ms": int(NOON.timestamp() * 1000)} for i in range(0, 40, 2)],
    )
    spec = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,))
    service = make_service(models=MODELS, sources={"kafka": spec.model_dump()})
    source = Kafka(spec)
    source.poll(5.0)
    log = source._topic_id(topic)  # noqa: SLF001 - the intake would know it
    source.close()
    name = f"kafka/{topic}/0/{log}"
    with service._open_logs() as read:  # noqa: SLF001 - as the intake would have read them
        for first, last in ((0, 4), (2, 3), (10, 14), (13, 19)):
            batch = Batch(Place(topic, 0), first, last, list(read(name, first, last)))
            service.take_batch(batch.lines, Origin(name, str(first), NOON, batch.arrivals, last))
    deleted(service, "profile_batches", "server = 'pod-1'")
    deleted(service, "predictions", "server = 'pod-1'")
    repairs = {d["repair"] for d in audited(service, repair=True)}
    again = {
        f"taken in again: offsets {first} to {last}" for first, last in ((0, 4), (2, 3), (5, 9), (10, 14), (13, 19))
    }
    assert repairs == {
        "what is there twice was removed",
        "taken in again: offsets 15 to 19; what is there twice was removed",
        *again,
    }
    assert audited(service) == []
    assert service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0] == 40
