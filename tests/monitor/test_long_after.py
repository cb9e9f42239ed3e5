"""What comes again, or is repaired, after sums were sealed and letters removed: it counts once, and nothing goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl
import pytest
from fake_log import FakeLog, Later
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from monitor.audit import Auditor, Read
from monitor.batches import Limits
from monitor.dead_letter_watch import TooManyDeadLettersError
from monitor.folding import span
from monitor.ingest import Origin
from monitor.intake import Intake
from monitor.metrics import Metrics
from monitor.service import Service
from monitor.sources import Message, Place
from monitor.windows import read_traffic

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SPEC = {"windows": ["1h"], "features": {"x": "numeric", "c": "categorical"}}
TABLE = pl.DataFrame({"x": [float(i % 7) for i in range(400)], "c": ["a", "b"] * 200})
EVENTS = [prediction(n, NOON + timedelta(seconds=20 * n), prediction_id=f"p{n}") for n in range(100)]
SOURCE = "kafka/t/0/log"
ARRIVED = NOON + timedelta(minutes=40)


@pytest.fixture
def replayed(make_service: ServiceMaker, clock: StillClock) -> Service:
    """Events of a model that nobody had declared, replayed once it was."""
    clock.at = ARRIVED
    unknown = make_service(models={"other": SPEC}, unknown_models="reject")
    assert unknown.take(ndjson(EVENTS), "file", key="log").accepted == 0
    service = make_service(models={"other": SPEC, "m": SPEC}, unknown_models="reject")
    service.register_reference("m", TABLE, "train")
    clock.at = ARRIVED + timedelta(minutes=10)
    assert service.replay_dead_letters()["taken"] == 100
    return service


def seal(service: Service, clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    service.judge_due(NOON + 2 * HOUR)
    monkeypatch.setattr(service, "_judged_until", lambda _: clock.at)
    for hours in range(3):
        clock.at = NOON + 4 * DAY + hours * HOUR
        service.remove_old(clock.at)
    assert service.store.select("SELECT count() AS n FROM profile_batches FINAL")["n"].to_list() == [0]


def counted(service: Service) -> tuple[int, int]:
    """Events in the profiles of the hour, and rows."""
    model = service.registry.get("production", "m")
    rows = service.store.select("SELECT count() AS n FROM predictions FINAL")["n"][0]
    return read_traffic(service.store, model, NOON, NOON + HOUR).rows(), rows


def test_what_was_replayed_stays_when_the_letters_go(replayed: Service, clock: StillClock) -> None:
    clock.at = NOON + 91 * DAY
    replayed.remove_old(clock.at)
    assert replayed.store.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [0]
    before = replayed.store.select("SELECT source, batch FROM batches FINAL ORDER BY source, batch").rows()
    replayed.audit_lately(clock.at)
    assert replayed.audit(NOON - HOUR, clock.at, repair=True)["disagreements"] == []
    assert replayed.store.select("SELECT source, batch FROM batches FINAL ORDER BY source, batch").rows() == before


def test_a_file_that_is_imported_again_counts_once_though_its_replay_is_sealed(
    replayed: Service, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(replayed, clock, monkeypatch)
    assert counted(replayed) == (100, 100)
    assert replayed.take(ndjson(EVENTS), "file", key="log").accepted == 100
    assert counted(replayed) == (100, 100)
    clock.at += HOUR
    replayed.remove_old(clock.at)
    assert counted(replayed) == (100, 100)
    assert replayed.audit(NOON - HOUR, clock.at, repair=True)["disagreements"] == []


def test_what_served_when_is_counted_once_though_its_hour_is_sealed(
    replayed: Service, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(replayed, clock, monkeypatch)
    replayed.take(ndjson(EVENTS), "file", key="log")
    hours = span(replayed.store, "production", "m", NOON - HOUR, NOON + 2 * HOUR)
    served = replayed.store.query("served_hours", environment="production", model="m", **hours.parameters)
    assert served["rows"].sum() == 100


def test_rows_of_a_forgotten_prediction_that_were_on_their_way_go_within_the_hour(
    replayed: Service, clock: StillClock
) -> None:
    rows = replayed.store.select("SELECT * FROM predictions FINAL WHERE prediction_id = 'p7'")
    assert replayed.forget("m", "p7") == {"predictions": 1}
    replayed.store.insert("predictions", rows)
    clock.at += HOUR
    replayed.remove_old(clock.at)
    left = replayed.store.select("SELECT count() AS n FROM predictions FINAL WHERE prediction_id = 'p7'")
    assert left["n"].to_list() == [0]


def test_short_windows_are_not_late_while_their_hour_goes_on(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"m": {**SPEC, "windows": ["5m"], "monitors": ["errors"]}})
    for minute in range(58):
        clock.at = NOON + timedelta(minutes=minute)
        service.take(ndjson([prediction(minute, clock.at)]), "http")
        service.judge_due(clock.at)
        assert service.late.due(clock.at) == []
    assert service.judge_due(NOON + timedelta(minutes=70)) > 0


def test_a_model_whose_letters_are_replayed_is_judged_from_then_on(replayed: Service, clock: StillClock) -> None:
    assert replayed.registry.get("production", "m").since == clock.at


def test_old_letters_that_are_replayed_raise_no_alarms(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = ARRIVED
    make_service(models={"other": SPEC}, unknown_models="reject").take(ndjson(EVENTS), "http")
    clock.at = NOON + DAY
    service = make_service(models={"other": SPEC, "m": SPEC}, unknown_models="reject")
    service.register_reference("m", TABLE, "train")
    assert service.replay_dead_letters()["taken"] == 100
    assert service.judge_due(clock.at) == 0


def logs_of(messages: Sequence[dict[str, Any]]) -> Callable[[], contextlib.AbstractContextManager[Read]]:
    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        def read(_: str, first: int, last: int) -> Iterator[Message]:
            for n in range(first, last + 1):
                line = orjson.dumps(messages[n])
                yield Message(n, int(ARRIVED.timestamp() * 1000), [line], len(line))

        yield read

    return opened


def test_what_is_read_again_with_other_boundaries_after_its_hours_were_sealed_counts_once(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.at = ARRIVED
    service = make_service(models={"m": SPEC})
    service.register_reference("m", TABLE, "train")

    def take(first: int, last: int) -> None:
        lines = [orjson.dumps(event) for event in EVENTS[first : last + 1]]
        at = [ARRIVED.timestamp()] * len(lines)
        service.take_batch(lines, Origin(SOURCE, str(first), ARRIVED, at, last))

    for first, last in ((0, 9), (10, 49), (50, 99)):
        take(first, last)
    seal(service, clock, monkeypatch)
    for first, last in ((0, 29), (30, 69), (70, 99)):  # the group lost its commits, and reads all of it again
        take(first, last)
    assert counted(service) == (170, 190)
    service.auditor = Auditor(service.store, service.registry, service.references, service.ingest, logs_of(EVENTS))
    told = service.audit(NOON - HOUR, clock.at, repair=True)["disagreements"]
    assert {d["what"] for d in told} == {"messages taken in twice"}
    assert service.audit(NOON - HOUR, clock.at, repair=True)["disagreements"] == []
    assert counted(service) == (100, 100)


class Broken:
    """Takes every topic for broken."""

    revision = "r"

    def take_batch(self, *_: object) -> None:
        raise TooManyDeadLettersError("no events")

    def forget_batch(self, _: Origin) -> None:
        """Nothing is there of it."""

    def report_progress(self, _: object) -> None:
        """Nobody waits for it."""


def test_partitions_that_are_stopped_at_hold_no_memory() -> None:
    log, limits, worker, seconds = FakeLog(16), Limits(rows=10**6, size=10_000, seconds=0.0), Later(), [0.0]
    for partition in range(16):
        for _ in range(60):
            log.append(Place("t", partition), b"x" * 1_000)
    metrics = Metrics()
    intake = Intake(
        log.join(), Broken(), metrics, limits, worker, monotonic=lambda: seconds[0], now=lambda: datetime.now(UTC)
    )
    held = []
    for _ in range(1_500):
        intake.step()
        worker.run()
        seconds[0] += 0.05
        held.append(sum(b.size for b in intake._buffers.values()))  # noqa: SLF001 - it is told nowhere else
    assert len(intake._stopped) == 16  # noqa: SLF001 - as above
    assert max(held) < 16 * limits.size, "what one poll gives is not told before"
    assert sorted(held)[len(held) // 2] == 0
