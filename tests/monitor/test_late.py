"""Events that come late: their windows are judged again, once, and nothing is told twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from sqlalchemy import select

from alerts.ledger import LedgerError
from alerts.ledger.schema import evaluations
from monitor.config import ClickHouseSpec, Config
from monitor.folding import mark
from monitor.ingest import Origin
from monitor.judge import Judge, JudgedAgain
from monitor.service import Service
from monitor.store import Store, StoreUnavailableError
from monitor.windows import floor

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
MODELS = {"m": {"windows": ["1h", "3h"], "label_delay": "30m", "features": {"x": "numeric", "c": "categorical"}}}
LATER = NOON + timedelta(hours=3, minutes=40)


def volumes(service: Service) -> dict[tuple[str, str], int]:
    """How many rows each judged window had, by the hours of its start and end."""
    rows = service.store.select("SELECT start, end, n FROM findings FINAL WHERE detector = 'volume' AND version = ''")
    return {(f"{start:%H}", f"{end:%H}"): n for start, end, n in rows.iter_rows()}


def accuracies(service: Service) -> dict[str, int]:
    hourly = "detector = 'accuracy' AND server = '' AND end = start + INTERVAL 1 HOUR"
    sql = f"SELECT start, n FROM findings FINAL WHERE {hourly}"  # noqa: S608 - our own words
    return {f"{start:%H}": n for start, n in service.store.select(sql).iter_rows()}


def settle(service: Service, at: datetime) -> int:
    """Two looks, between which nothing comes."""
    return service.judge_late(at) + service.judge_late(at + MINUTE)


def told(service: Service) -> list[Mapping[str, Any]]:
    return [e.as_line() for e in service.ledger.timeline() if e.event == "judged_again"]


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    """A service that has judged three hours, with 100 predictions and their labels each."""
    return with_three_hours(make_service(models=MODELS), clock)


@pytest.fixture
def on_server(tmp_path: Path, clock: StillClock, clickhouse_spec: ClickHouseSpec) -> Iterator[Service]:
    """The same on a ClickHouse server."""
    store = {"path": tmp_path / "data", "clickhouse": clickhouse_spec.model_dump()}
    with Service(Config.model_validate({"store": store, "models": MODELS}), clock) as service:
        yield with_three_hours(service, clock)


def with_three_hours(service: Service, clock: StillClock) -> Service:
    clock.at = NOON
    service.take(ndjson([prediction(0, NOON, prediction_id="first")]), "http")
    for hour in range(3):
        clock.at = NOON + hour * HOUR + 59 * MINUTE
        service.take(ndjson(hourly(hour, range(100))), "http")
    service.judge_due(LATER)
    return service


def hourly(hour: int, numbers: range) -> list[dict[str, Any]]:
    """Predictions of an hour, and their labels."""
    events = []
    for n in numbers:
        at = NOON + hour * HOUR + timedelta(seconds=30 * (n % 100))
        name = f"{hour}-{n}"
        label = {"type": "label", "model": "m", "prediction_id": name, "label": "yes", "timestamp": at.timestamp() + 9}
        events += [prediction(n, at, prediction_id=name), label]
    return events


@pytest.mark.parametrize("kind", ["service", "on_server"])
def test_windows_are_judged_again_when_events_come_late(kind: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(kind)
    assert volumes(service) == {("12", "13"): 101, ("13", "14"): 100, ("14", "15"): 100, ("12", "15"): 301}
    assert accuracies(service) == {"12": 100, "13": 100, "14": 100}
    assert settle(service, LATER) == 0
    service.take(ndjson(hourly(1, range(100, 140))), "http")
    assert service.judge_late(LATER) == 0, "the hour is not left alone yet"
    assert service.judge_late(LATER + MINUTE) == 4
    assert volumes(service) == {("12", "13"): 101, ("13", "14"): 140, ("14", "15"): 100, ("12", "15"): 341}
    assert accuracies(service) == {"12": 100, "13": 140, "14": 100}
    assert [(e["start"][11:13], e["late_rows"]) for e in told(service)] == [("13", 40)], "once, for the shortest window"
    assert settle(service, LATER + HOUR) == 0


def test_a_window_is_judged_again_each_time_that_more_comes(service: Service) -> None:
    for number in range(100, 103):
        service.take(ndjson(hourly(0, range(number, number + 1))), "http")
        assert settle(service, LATER + number * MINUTE) == 4
    assert [e["late_rows"] for e in told(service)] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["service", "on_server"])
def test_a_batch_that_is_taken_in_twice_judges_nothing_again(kind: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(kind)
    measured = "SELECT max(measured) AS at, count() AS n FROM findings FINAL"
    before = service.store.select(measured).rows()
    for again in range(3):
        service.take(ndjson(hourly(1, range(100))), "http")
        assert settle(service, LATER + again * HOUR) == 0
    assert service.store.select(measured).rows() == before
    assert told(service) == []
    assert service.late.due(LATER + 9 * HOUR) == []


def test_hours_that_are_written_to_all_the_time_are_judged_again_nevertheless(service: Service) -> None:
    judged = 0
    for minute in range(16):
        service.take(ndjson(hourly(1, range(100 + minute, 101 + minute))), "http")
        judged += service.judge_late(LATER + minute * MINUTE - timedelta(seconds=minute))
    assert judged == 0
    service.take(ndjson(hourly(1, range(190, 191))), "http")
    assert service.judge_late(LATER + 16 * MINUTE) == 4


def test_what_comes_too_late_is_counted_and_not_judged(service: Service) -> None:
    minutes = service.config.models["m"].retention.minutes
    service.take(ndjson(hourly(0, range(100, 110))), "http")
    assert settle(service, NOON + 3 * HOUR + minutes + 30 * MINUTE) == 0


def test_late_events_repeat_no_alarm(make_service: ServiceMaker, clock: StillClock) -> None:
    policies = [{"name": "p", "watch": "drift", "hold": 1, "window": "1h"}]
    service = make_service(models={"m": {**MODELS["m"], "windows": ["1h"]}}, policies=policies)
    service.register_reference("m", pl.DataFrame({"x": [100.0, 101.0] * 500, "c": ["a", "b"] * 500}), "train")
    clock.at = NOON + 59 * MINUTE
    service.take(ndjson(hourly(0, range(400))), "http")
    service.tick(NOON + HOUR + 5 * MINUTE)
    before = [e.event for e in service.ledger.timeline()]
    assert "drift_found" in before
    service.take(ndjson(hourly(0, range(400, 800))), "http")
    for minute in range(6, 9):
        service.tick(NOON + HOUR + minute * MINUTE)
    assert [e.event for e in service.ledger.timeline()] == [*before, "judged_again"]


def test_only_one_of_several_judges_a_window_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.take(ndjson(hourly(1, range(100, 140))), "http")
    service.judge_late(LATER)
    late = [late for late in service.late.due(LATER + MINUTE) if late.judged.kind == "traffic"]
    again = Judge.again
    judged_by_others = []

    def meanwhile(judge: Judge, *arguments: Any) -> JudgedAgain | None:
        monkeypatch.setattr(Judge, "again", again)
        monkeypatch.setattr(service, "_owner", "another")
        judged_by_others.append(service._judge_again(late[0], LATER + MINUTE))  # noqa: SLF001 - as another process would
        monkeypatch.undo()
        return again(judge, *arguments)

    monkeypatch.setattr(Judge, "again", meanwhile)
    assert service._judge_again(late[0], LATER + MINUTE)  # noqa: SLF001 - one window
    assert judged_by_others == [False]
    assert not service._judge_again(late[0], LATER + MINUTE)  # noqa: SLF001 - the other finds it done
    assert len(told(service)) <= 1


def test_a_failure_is_tried_again_but_not_for_ever(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(models={"m": {**MODELS["m"], "windows": ["1h"], "monitors": ["errors"]}})
    clock.at = NOON + 59 * MINUTE
    service.take(ndjson(hourly(0, range(100))), "http")
    service.judge_due(NOON + HOUR + 5 * MINUTE)
    service.take(ndjson(hourly(0, range(100, 110))), "http")
    tried = []

    def fails(error: Exception) -> Callable[..., None]:
        def again(*_: Any) -> None:
            tried.append(error)
            raise error

        return again

    service.judge_late(NOON + 2 * HOUR)
    monkeypatch.setattr(Judge, "again", fails(StoreUnavailableError("away")))
    for minute in range(1, 6):
        assert service.judge_late(NOON + 2 * HOUR + minute * MINUTE) == 0
    monkeypatch.setattr(Judge, "again", fails(ZeroDivisionError("a fault")))
    for minute in range(6, 12):
        assert service.judge_late(NOON + 2 * HOUR + minute * MINUTE) == 0
    assert [type(e).__name__ for e in tried].count("StoreUnavailableError") == 3, "each time after a minute's rest"
    assert [type(e).__name__ for e in tried].count("ZeroDivisionError") <= 3


def test_what_was_not_decided_on_is_judged_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.take(ndjson(hourly(1, range(100, 140))), "http")
    service.judge_late(LATER)
    with monkeypatch.context() as down:

        def away(*_: Any) -> bool:
            raise LedgerError("the ledger is away")

        down.setattr(service.desk, "take_again", away)
        assert service.judge_late(LATER + MINUTE) == 0
    assert told(service) == []
    assert settle(service, LATER + 5 * MINUTE) == 4
    assert [e["late_rows"] for e in told(service)] == [40]


def test_windows_that_somebody_asked_for_are_not_judged_again(service: Service) -> None:
    service.evaluate("m", NOON + 95 * MINUTE)
    service.take(ndjson(hourly(0, range(100, 110))), "http")
    late = {(r["start"], r["end"]) for r in service.store.query("late_windows", now=LATER).rows(named=True)}
    service.judge_late(LATER)
    assert late
    assert (NOON + 35 * MINUTE, NOON + 95 * MINUTE) not in late
    assert service.judge_late(LATER + MINUTE) == 4


def test_without_late_events_one_query_is_all_it_costs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    query, asked = service.store.query, []

    def counting(name: str, **parameters: Any) -> Any:
        asked.append(name)
        return query(name, **parameters)

    monkeypatch.setattr(service.store, "query", counting)
    service.judge_late(LATER)
    assert asked == ["late_windows"]


def test_marks_without_events_change_nothing(service: Service) -> None:
    mark(service.store, pl.DataFrame({"environment": ["production"], "model": ["m"], "minute": [NOON]}))
    assert settle(service, LATER) == 0
    assert service.late.due(LATER + HOUR) == []


def test_a_batch_that_was_removed_has_its_windows_judged_again(service: Service) -> None:
    origin = Origin("kafka/t/0/x", "0", LATER)
    lines = ndjson(hourly(2, range(100, 120))).split(b"\n")
    service.take_batch(lines, origin)
    assert settle(service, LATER) > 0
    service.forget_batch(origin)
    assert settle(service, LATER + 9 * MINUTE) > 0
    assert volumes(service)[("14", "15")] == 100
    assert [e["late_rows"] for e in told(service)] == [20, -20]


def retractions(hour: int, numbers: range, after: timedelta) -> list[dict[str, Any]]:
    """Labels of predictions of an hour that were taken back so long after them."""
    about = {"type": "label", "model": "m", "label": None}
    start = NOON + hour * HOUR + after
    return [
        {**about, "prediction_id": f"{hour}-{n}", "timestamp": (start + timedelta(seconds=30 * n)).timestamp()}
        for n in numbers
    ]


@pytest.mark.parametrize("kind", ["service", "on_server"])
def test_accuracy_is_judged_again_when_labels_come_late(kind: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(kind)
    service.take(ndjson(retractions(1, range(40), 20 * MINUTE)), "http")
    assert service.judge_late(LATER) == 0, "the hour is not left alone yet"
    assert service.judge_late(LATER + MINUTE) == 2, "the accuracy of the hour and of the three hours"
    assert accuracies(service) == {"12": 100, "13": 60, "14": 100}
    assert told(service) == [], "no traffic came"
    assert settle(service, LATER + HOUR) == 0


def test_accuracy_is_judged_again_when_labels_of_a_batch_are_removed(service: Service) -> None:
    label = {"type": "label", "model": "m", "prediction_id": "1-7", "label": "no"}
    origin = Origin("kafka/t/0/log", "0", LATER, None, 0)
    service.take_batch([orjson.dumps(label | {"timestamp": (NOON + HOUR + 20 * MINUTE).timestamp()})], origin)
    assert settle(service, LATER) == 2
    service.forget_batch(origin)
    assert settle(service, LATER + HOUR) == 2


def test_labels_that_were_known_too_late_change_nothing(service: Service) -> None:
    service.take(ndjson(retractions(1, range(40), 31 * MINUTE)), "http")
    assert settle(service, LATER) == 0
    assert accuracies(service) == {"12": 100, "13": 100, "14": 100}


def test_claims_of_late_windows_go_once_nobody_watches_them(service: Service, clock: StillClock) -> None:
    service.take(ndjson(hourly(1, range(100, 140))), "http")
    assert settle(service, LATER) == 4

    def claims() -> list[bool]:
        with service.ledger.reading() as book:
            return [" at " in kind for (kind,) in book.connection.execute(select(evaluations.c.kind))]

    before = claims()
    late, others = sum(before), len(before) - sum(before)
    assert late >= 4
    for days, left in ((3, late), (5, 0)):
        clock.at = NOON + timedelta(days=days)
        service.remove_old(clock.at)
        assert (sum(claims()), len(claims()) - sum(claims())) == (left, others + 1), "that of retention is another one"


def test_windows_of_any_length_are_late_when_their_hours_or_labels_were_written_to(any_store: Store) -> None:
    random = np.random.default_rng(5)
    models = ["a", "b", "c"]
    marks = {
        table: pl.DataFrame(
            {
                "environment": "production",
                "model": random.choice(models[:2], 120),  # of the last one nothing was ever written
                "hour": [NOON + int(n) * HOUR for n in random.integers(-60, 60, 120)],
                "marks": random.integers(1, 4, 120).astype(np.uint64),
            }
        )
        for table in ("profile_marks", "label_marks")
    }
    for table, rows in marks.items():
        any_store.insert(table, rows)

    def counted(table: str, model: str, start: datetime, end: datetime) -> int:
        written = marks[table].filter(pl.col("model") == model, pl.col("hour") >= floor(start, HOUR))
        return int(written.filter(pl.col("hour") < end)["marks"].sum())

    judged: list[dict[str, Any]] = []
    expected = set()
    for n in range(300):
        model, kind = str(random.choice(models)), str(random.choice(["traffic", "labels"]))
        end = NOON + int(random.integers(-2000, 2000)) * MINUTE
        start = end - int(random.choice([5, 60, 240, 1440])) * MINUTE
        labels_until = end + int(random.integers(0, 3000)) * MINUTE
        now = counted("profile_marks", model, start, end)
        now += counted("label_marks", model, start - 24 * HOUR, labels_until) if kind == "labels" else 0
        known = max(0, now - int(random.integers(0, 2)))
        watched = NOON + int(random.integers(-1, 2)) * HOUR
        window = {"model": model, "kind": kind, "start": start, "end": end}
        known_then = {"marks": known, "events": n, "labels_until": labels_until, "watched_until": watched}
        judged.append({"environment": "production", **window, **known_then, "digest": str(n), "judged": NOON})
        if watched > NOON and known != now:
            expected.add((model, kind, start, end, known, now))
    any_store.insert("judgements", pl.DataFrame(judged).with_columns(pl.col("marks", "events").cast(pl.UInt64)))
    found = any_store.query("late_windows", now=NOON).select("model", "kind", "start", "end", "marks", "marks_now")
    assert set(found.rows()) == expected
    assert len(expected) > 20
