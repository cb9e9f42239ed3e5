"""The auditor while batches come in, and what it makes good: nothing becomes less or more than was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from reread import NAME, Log

from monitor.audit import Disagreement
from monitor.batches import Limits
from monitor.dead_letter_watch import DeadLetterWatch
from monitor.folding import fold, mark
from monitor.ingest import Origin
from monitor.service import Service
from monitor.store import StoreError

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
FEATURES = {"x": "numeric", "c": "categorical"}
REFERENCE = pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200})


@pytest.fixture
def make(make_service: ServiceMaker, clock: StillClock) -> Callable[..., Service]:
    """Makes a service with a model that has a layout."""

    def made(sampled: float = 1.0, **sections: Any) -> Service:
        clock.at = NOON
        spec = {"features": FEATURES, "sampling": {"features": sampled}}
        service = make_service(models={"m": spec}, **sections)
        service.register_reference("m", REFERENCE, "train")
        return service

    return made


def sent(numbers: range, at: datetime = NOON - HOUR, arrived: datetime = NOON - 5 * MINUTE) -> list[Any]:
    return [(ndjson([prediction(n, at)]), arrived) for n in numbers]


def held(service: Service) -> tuple[int, int]:
    """Events that the profiles count, and rows of predictions."""
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0]
    return int(profiled), int(service.status()["rows"]["predictions"])


def audited(
    log: Log, service: Service, *, repair: bool = True, at: datetime = NOON + HOUR, limits: Limits | None = None
) -> list[Disagreement]:
    return log.auditor(service, limits or Limits()).audit(NOON - 3 * HOUR, NOON + HOUR, at, repair=repair)


def test_the_scheduled_audit_looks_at_whole_hours(make: Callable[..., Service], clock: StillClock) -> None:
    service = make(sampled=0.1)
    service.take(ndjson([prediction(n, NOON - DAY + n * timedelta(seconds=18)) for n in range(190)]), "http")
    clock.at = NOON + 30 * MINUTE  # the first hour is cut by the day before
    service.audit_lately(clock.at)
    assert service.metrics.registry.get_sample_value("telltale_audit_disagreements") == 0
    assert held(service) == (190, 190)
    service.store.execute("DELETE FROM predictions WHERE prediction_id = 'p7'")
    service.audit_lately(clock.at)
    assert service.metrics.registry.get_sample_value("telltale_audit_disagreements") == 1


def test_a_span_that_ends_within_an_hour_is_no_disagreement(make: Callable[..., Service]) -> None:
    service = make()
    service.take(ndjson([prediction(n, NOON - HOUR + n * timedelta(seconds=18)) for n in range(190)]), "http")
    assert service.auditor.audit(NOON - 2 * HOUR, NOON - 30 * MINUTE, NOON, repair=False) == []


@pytest.mark.parametrize("kept", [0.1, 0.0001])
def test_profiles_are_never_made_from_a_sample(make: Callable[..., Service], kept: float) -> None:
    service = make(sampled=kept)
    service.take(ndjson([prediction(n, NOON - HOUR) for n in range(190)]), "http")
    service.store.execute("DELETE FROM profile_batches WHERE server = 'pod-1'")
    before = held(service)
    found = service.auditor.audit(NOON - 3 * HOUR, NOON, NOON + HOUR, repair=True)
    assert [(d.what, d.expected, d.found) for d in found] == [("profiles", 190, before[0])]
    assert found[0].repair.startswith("not repaired: it came from no log, and of its 190 events")
    assert held(service) == before


@pytest.mark.parametrize("table", ["predictions", "profile_batches", "batch_hours", "batches"])
def test_a_batch_that_ends_while_the_auditor_looks_is_no_disagreement(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    service = make(sampled=0.1)
    reached, go_on = threading.Event(), threading.Event()
    insert, query = service.store.insert, service.store.query

    def slow_insert(into: str, rows: pl.DataFrame) -> None:
        if into == table:
            reached.set()
            assert go_on.wait(30)
        insert(into, rows)

    def slow_query(name: str, **parameters: Any) -> pl.DataFrame:
        rows = query(name, **parameters)
        if name == "audit_hours" and not go_on.is_set():
            go_on.set()
            taking.join()
        return rows

    body = ndjson([prediction(n, NOON - HOUR) for n in range(300)])
    taking = threading.Thread(target=service.take, args=(body, "http"))
    monkeypatch.setattr(service.store, "insert", slow_insert)
    taking.start()
    assert reached.wait(30)
    monkeypatch.setattr(service.store, "insert", insert)
    monkeypatch.setattr(service.store, "query", slow_query)
    assert service.auditor.audit(NOON - 3 * HOUR, NOON + HOUR, NOON + HOUR, repair=True) == []
    assert held(service) == (300, 300)


def test_a_batch_of_kafka_that_is_being_taken_in_is_left_to_its_reader_however_old_it_is(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    log = Log(sent(range(20), NOON - 3 * HOUR, arrived=NOON - 2 * HOUR))
    log.take(service, 0, 9)
    insert = service.store.insert

    def killed(table: str, rows: pl.DataFrame) -> None:
        if table == "profile_batches":
            raise StoreError("away")
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", killed)
    with pytest.raises(StoreError):
        log.take(service, 10, 19)
    monkeypatch.setattr(service.store, "insert", insert)
    assert audited(log, service) == []
    assert held(service) == (10, 20)
    log.take(service, 10, 19)
    assert audited(log, service) == []
    assert held(service) == (20, 20)


def test_what_was_left_behind_in_a_gap_goes_when_the_gap_is_taken_in(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    log = Log(sent(range(40)))
    for first in (0, 30):
        log.take(service, first, first + 9)
    insert = service.store.insert
    monkeypatch.setattr(service.store, "insert", lambda t, r: None if t == "batches" else insert(t, r))
    log.take(service, 15, 29)
    monkeypatch.setattr(service.store, "insert", insert)
    whats = {d.what: d.repair for d in audited(log, service)}
    assert whats["messages taken in"] == "taken in again: offsets 10 to 29"
    assert held(service) == (40, 40)
    assert audited(log, service) == []


@pytest.mark.parametrize("skew", [-2 * DAY, 10 * MINUTE])
def test_messages_that_arrived_at_odd_times_leave_no_gap(
    make: Callable[..., Service], clock: StillClock, skew: timedelta
) -> None:
    service = make()
    odd = sent(range(10, 30), NOON + min(skew, -HOUR), NOON + skew)
    log = Log([*sent(range(10)), *odd, *sent(range(30, 40))])
    for first in range(0, 40, 10):
        log.take(service, first, first + 9)
    for hours in range(3):
        assert log.auditor(service).audit(NOON - HOUR, NOON + hours * HOUR, clock.at, repair=True) == []
    assert held(service) == (40, 40)


def test_gaps_are_taken_in_as_batches_of_the_usual_size_over_one_connection(make: Callable[..., Service]) -> None:
    service = make()
    messages = sent(range(60))
    messages[50] = None
    log = Log(messages)
    for first, last in ((0, 9), (40, 49), (51, 59)):
        log.take(service, first, last)
    found = audited(log, service, limits=Limits(rows=10))
    assert [(d.what, d.expected, d.lacking, d.repair) for d in found] == [
        ("messages taken in", 30, (10, 39), "taken in again: offsets 10 to 39")
    ]
    assert log.opened == 1
    assert held(service) == (59, 59)
    batches = service.store.select("SELECT first, last FROM batches FINAL ORDER BY first").rows()
    assert batches == [(0, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 50), (51, 59)]
    log.reads.clear()
    assert audited(log, service) == []
    assert log.reads == []  # what was looked at once and held nothing is not looked at again


def test_a_gap_that_was_filled_meanwhile_is_not_filled_twice(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    log = Log(sent(range(30)))
    log.take(service, 0, 9)
    log.take(service, 20, 29)
    read = log.read

    def slow_read(first: int, last: int) -> Any:
        monkeypatch.setattr(log, "read", read)
        log.take(service, 10, 14)
        log.take(service, 15, 19)
        return read(first, last)

    monkeypatch.setattr(log, "read", slow_read)
    assert audited(log, service) == []
    assert held(service) == (30, 30)


def test_a_repair_that_fails_leaves_the_batch_to_the_next_audit_and_the_next_ones_are_repaired(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["t"], "dead_letters": {"in_a_row": 10}}
    service = make(sources={"kafka": kafka})
    messages = sent(range(40))
    for bad in (*range(4, 10), *range(20, 26)):
        messages[bad] = (b"bad", NOON - 5 * MINUTE)
    log = Log(messages)
    for first in range(0, 40, 10):
        log.take(service, first, first + 9)
    assert held(service) == (28, 28)
    for batch in ("0", "20"):
        row = service.store.select(f"SELECT * FROM predictions FINAL WHERE batch = '{batch}' LIMIT 1")  # noqa: S608 - ours
        service.store.insert("predictions", row.with_columns(row=pl.lit(77, pl.UInt32)))
    service.ingest.watch = DeadLetterWatch(service.ingest.watch._limits)  # noqa: SLF001 - as after a start
    insert = service.store.insert
    fails = iter([True])

    def failing(table: str, rows: pl.DataFrame) -> None:
        if table == "predictions" and next(fails, False):
            raise StoreError("away")
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", failing)
    repairs = {d.batch: d.repair for d in audited(log, service)}
    assert repairs == {"0": "not repaired: StoreError: away", "20": "taken in again: offsets 20 to 29"}
    assert {d.repair for d in audited(log, service)} == {"taken in again: offsets 0 to 9"}
    assert held(service) == (28, 28)
    assert audited(log, service) == []


def test_what_the_log_does_not_have_any_more_is_told_and_left(make: Callable[..., Service]) -> None:
    service = make()
    log = Log(sent(range(10)))
    log.take(service, 0, 9)
    service.store.execute("DELETE FROM predictions WHERE prediction_id = 'p3'")
    log.is_gone = True
    found = audited(log, service)
    assert [d.repair for d in found] == [
        "not repaired: its messages were deleted, and prediction rows cannot be made from anything else"
    ]
    assert held(service) == (10, 9)


def test_nothing_is_repaired_once_another_process_does(make: Callable[..., Service]) -> None:
    service = make()
    log = Log(sent(range(10)))
    log.take(service, 0, 9)
    service.store.execute("DELETE FROM predictions WHERE prediction_id = 'p3'")
    found = log.auditor(service).audit(NOON - 3 * HOUR, NOON, NOON + HOUR, repair=True, alone=lambda: False)
    assert [d.repair for d in found] == ["not repaired: another process repairs at this moment"]
    with service._repairing(NOON) as alone:  # noqa: SLF001 - what the audit runs in
        assert alone()


def test_lost_labels_are_found(make: Callable[..., Service]) -> None:
    service = make()
    label = {"type": "label", "model": "m", "label": "yes", "timestamp": NOON.timestamp()}
    log = Log([(ndjson([{**label, "prediction_id": f"p{n}"}]), NOON) for n in range(20)])
    log.take(service, 0, 19)
    service.store.execute("DELETE FROM labels WHERE prediction_id = 'p3'")
    found = audited(log, service)
    assert [(d.what, d.expected, d.found, d.repair) for d in found] == [
        ("labels", 20, 19, "taken in again: offsets 0 to 19")
    ]
    assert audited(log, service) == []


def test_events_at_the_very_end_of_an_hour_are_counted_where_their_rows_are(make: Callable[..., Service]) -> None:
    service = make()
    events = [prediction(n, NOON - HOUR) | {"timestamp": NOON.timestamp() - 2.4e-7} for n in range(40)]
    service.take(ndjson(events), "http")
    assert service.auditor.audit(NOON - 3 * HOUR, NOON + HOUR, NOON + HOUR, repair=False) == []


def test_a_batch_can_be_forgotten_again_where_that_failed_before(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    from monitor.fleet import served

    service = make()
    log = Log(sent(range(10)))
    origin = Origin(NAME, "0", NOON, None, 9)
    execute = service.store.execute
    tables = ("profile_batches", "predictions", "features", "labels", "dead_letters", "batch_hours")
    for table in tables:
        log.take(service, 0, 9)
        fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
        fails = iter([True])

        def failing(sql: str, table: str = table, fails: Any = fails) -> None:
            if sql.split()[:3] == ["DELETE", "FROM", table] and next(fails, False):
                raise StoreError("away")
            execute(sql)

        monkeypatch.setattr(service.store, "execute", failing)
        while True:
            try:
                service.forget_batch(origin)
                break
            except StoreError:
                fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
        assert held(service) == (0, 0)
        assert served(service.store, "production", "m", NOON - 3 * HOUR, NOON).is_empty()
        for held_in in tables:
            there = service.store.select(f"SELECT count() AS n FROM {held_in} WHERE batch = '0'")  # noqa: S608 - ours
            assert there["n"][0] == 0


def test_a_write_that_ended_before_its_last_mark_is_in_no_sum(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    from monitor.fleet import served

    service = make()
    service.take(ndjson([prediction(n, NOON - HOUR) for n in range(10)]), "http")
    fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
    insert = service.store.insert
    marks = iter([True, False])

    def killed(table: str, rows: pl.DataFrame) -> None:
        if table == "profile_marks" and not next(marks):
            raise StoreError("killed")
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", killed)
    with pytest.raises(StoreError):
        service.take(ndjson([prediction(n + 50, NOON - HOUR) for n in range(10)]), "http")
    monkeypatch.setattr(service.store, "insert", insert)
    assert served(service.store, "production", "m", NOON - 3 * HOUR, NOON)["rows"].sum() == held(service)[0] == 20


def test_a_planted_sum_is_told_once(make: Callable[..., Service]) -> None:
    service = make()
    log = Log(sent(range(10)))
    log.take(service, 0, 9)
    fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
    service.store.execute("DELETE FROM profile_hours WHERE server = 'pod-1'")
    assert [d.what for d in audited(log, service)] == ["sum of an hour"]
    mark(service.store, pl.DataFrame({"environment": ["production"], "model": ["m"], "minute": [NOON - HOUR]}))
    assert audited(log, service) == []


def test_audits_find_nothing_while_batches_come_in(make: Callable[..., Service]) -> None:
    service = make(sampled=0.1)
    log = Log(sent(range(150), arrived=NOON - 50 * MINUTE))
    stop = threading.Event()

    def take() -> None:
        for first in range(0, 150, 10):
            log.take(service, first, first + 9)
            service.take(ndjson([prediction(1000 + first + n, NOON - HOUR) for n in range(5)]), "http")
            fold(service.store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
        stop.set()

    taking = threading.Thread(target=take)
    taking.start()
    told = []
    while not stop.is_set():
        told += audited(log, service, at=NOON)  # the requests are being taken in at noon
    taking.join()
    assert told == []
    assert audited(log, service) == []
    assert held(service) == (225, 225)


def test_two_batches_with_the_same_messages_are_left_where_the_log_cannot_prove_the_rest(
    make: Callable[..., Service],
) -> None:
    service = make()
    log = Log(sent(range(10)))
    for first, last in ((0, 9), (4, 7)):
        log.take(service, first, last)
    service.store.execute("DELETE FROM features WHERE batch = '0' AND prediction_id = 'p5'")
    log.is_gone = True
    repairs = {d.what: d.repair for d in audited(log, service)}
    assert repairs["messages taken in twice"] == "not repaired: other batches of its log do not agree"
    assert held(service) == (14, 14)
    log.is_gone = False
    audited(log, service)
    assert audited(log, service) == []
    assert held(service) == (10, 10)
