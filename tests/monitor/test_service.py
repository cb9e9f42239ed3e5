"""The service over time: windows judged once each, claims, restarts, and a judge that fails."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from alerts.ledger import Claim
from detectors.finding import Finding, Window
from monitor.intake import Progress
from monitor.judge import Judge
from monitor.service import Service
from monitor.sources import Place
from monitor.store import StoreError

HOUR = timedelta(hours=1)
MODELS = {"m": {"windows": ["1h"], "label_delay": "2h", "features": {"x": "numeric", "c": "categorical"}}}


def judged(service: Service) -> list[tuple[str, str]]:
    rows = service.store.select(
        "SELECT DISTINCT toString(start) AS start, detector FROM findings FINAL ORDER BY start, detector"
    )
    return [
        (r["start"][11:16], r["detector"])
        for r in rows.iter_rows(named=True)
        if r["detector"] in ("volume", "accuracy")
    ]


def traffic(service: Service, hours: int) -> None:
    events: list[dict[str, Any]] = []
    for hour in range(hours):
        for i in range(250):
            at = NOON + hour * HOUR + timedelta(seconds=10 * i)
            events.append(prediction(i, at, prediction_id=f"{hour}-{i}"))
            events.append(
                {
                    "type": "label",
                    "model": "m",
                    "prediction_id": f"{hour}-{i}",
                    "label": "yes",
                    "timestamp": at.timestamp() + 3600,
                }
            )
    service.clock.at = NOON + hours * HOUR  # type: ignore[attr-defined]  # the tests give it a clock that can be set
    service.take(ndjson(events), "http")


def test_each_window_is_judged_once_and_accuracy_waits_for_the_labels(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    service = make_service(models=MODELS)
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    traffic(service, 3)
    assert service.judge_due(clock.at) == 2, "the last window waits for events on their way"
    assert service.judge_due(clock.at + timedelta(minutes=2)) == 1 + 1
    assert service.judge_due(clock.at + timedelta(minutes=2)) == 0
    assert judged(service) == [("12:00", "accuracy"), ("12:00", "volume"), ("13:00", "volume"), ("14:00", "volume")]


def test_a_pause_is_caught_up(make_service: ServiceMaker) -> None:
    service = make_service(models=MODELS)
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    service.judge_due(NOON + HOUR + timedelta(minutes=2))
    traffic(service, 5)
    again = make_service(models=MODELS)
    again.judge_due(NOON + 7 * HOUR + timedelta(minutes=2))
    starts = [start for start, detector in judged(again) if detector == "volume"]
    assert starts == ["12:00", "13:00", "14:00", "15:00", "16:00", "17:00", "18:00"]


def test_two_judges_never_judge_a_window_twice(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service(models=MODELS)
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    traffic(service, 2)
    claim = Claim("production", "m", "traffic:3600s", NOON, NOON + HOUR, "another judge")
    assert service.ledger.claim(claim, clock.at, HOUR)
    assert service.judge_due(clock.at) == 0
    assert service.judge_due(clock.at + 2 * HOUR) >= 1, "its lease has run out"


def test_a_window_that_could_not_be_judged_is_tried_again(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(models=MODELS)
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    traffic(service, 2)
    insert = service.store.insert

    def broken(table: str, rows: pl.DataFrame) -> None:
        if table == "findings":
            raise StoreError("the disk is full")
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", broken)
    assert service.judge_due(clock.at) == 0
    assert service.metrics.registry.get_sample_value("telltale_judge_failures_total") == 1
    monkeypatch.undo()
    assert service.judge_due(clock.at) == 1
    assert judged(service) == [("12:00", "volume")]


def test_history_that_is_imported_raises_no_alarms(make_service: ServiceMaker) -> None:
    service = make_service(models=MODELS, policies=[{"name": "p", "watch": "drift", "hold": 1}])
    service.take(
        ndjson([prediction(i, NOON - timedelta(days=300) + i * timedelta(minutes=1)) for i in range(3000)]), "file"
    )
    service.tick(NOON + timedelta(minutes=5))
    assert judged(service) == []
    assert service.ledger.timeline() == []


def test_a_window_that_always_fails_is_an_error_and_holds_up_nobody_for_ever(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(models=MODELS, policies=[{"name": "p", "watch": "drift", "hold": 1}])
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    traffic(service, 3)
    measure = Judge.traffic

    def broken(judge: Judge, model: Any, window: Window, now: Any) -> list[Finding]:
        if window.start == NOON:
            raise ZeroDivisionError("a detector's fault")
        return measure(judge, model, window, now)

    monkeypatch.setattr(Judge, "traffic", broken)
    later = clock.at + timedelta(minutes=2)
    counts = [service.judge_due(later) for _ in range(4)]
    assert sum(counts) >= 3
    found = service.findings("m", NOON, limit=1000)
    failed = [f for f in found if f["status"] == "error"]
    assert {f["start"] for f in failed} == {NOON.isoformat()}
    assert {f["message"] for f in failed} == {"ZeroDivisionError: a detector's fault"}
    assert {start for start, detector in judged(service) if detector == "volume"} == {"13:00", "14:00"}
    assert service.ledger.timeline() == []


def test_windows_wait_until_kafka_is_read_up_to_their_end(make_service: ServiceMaker, clock: StillClock) -> None:
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["scores", "labels"]}
    service = make_service(models={"m": {"windows": ["1h"]}}, sources={"kafka": kafka})
    clock.at = NOON
    service.take(ndjson([prediction(n, NOON) for n in range(300)]), "http")
    clock.at = NOON + timedelta(hours=5)

    def read_until(topic: str, at: datetime, log: str = "first", partition: int = 0) -> None:
        service.report_progress([Progress(Place(topic, partition), log, at)])
        service.write_progress(clock.at)
        clock.at += timedelta(milliseconds=1)

    assert service.judge_due(clock.at) == 0
    read_until("scores", clock.at)
    assert service.judge_due(clock.at) == 0
    read_until("labels", NOON + timedelta(hours=1, minutes=2))
    assert service.judge_due(clock.at) == 1
    read_until("labels", clock.at)
    read_until("scores", NOON + timedelta(hours=2, minutes=2), partition=1)
    assert service.judge_due(clock.at) == 1
    read_until("scores", NOON + timedelta(hours=4, minutes=2), log="made anew")
    assert service.judge_due(clock.at) == 2


def test_a_failed_look_at_the_models_leaves_what_was_known(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    service.take(ndjson([prediction(n, NOON) for n in range(300)]), "http")
    service.evaluate("m", NOON)
    known = service.registry.get("production", "m")
    assert known.layout is not None
    query = service.store.query

    def fail(name: str, **parameters: Any) -> pl.DataFrame:
        if name == "latest_references":
            raise StoreError("away")
        return query(name, **parameters)

    monkeypatch.setattr(service.store, "query", fail)
    with pytest.raises(StoreError):
        service.registry.refresh(NOON)
    assert service.registry.get("production", "m") == known


def test_claims_of_a_store_that_was_lost_hold_nothing_up(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service(models={"m": {"windows": ["1h"]}})
    lost = Claim("production", "m", "traffic:3600s", NOON - timedelta(hours=9), NOON - timedelta(hours=8), "gone")
    assert service.ledger.claim(lost, NOON, timedelta(minutes=1))
    service.take(ndjson([prediction(n, NOON) for n in range(300)]), "http")
    clock.at = NOON + timedelta(hours=2)
    assert service.judge_due(clock.at) == 1
