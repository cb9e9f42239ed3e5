"""What the fleet should not be: versions that nobody released, retired ones, and clocks that are off."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from alerts.policy import Policy, judge
from detectors.finding import Finding, Window
from monitor.ingest import Origin
from monitor.service import Service

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def serve(service: Service, version: str, server: str, since: datetime, until: datetime) -> None:
    events = [
        prediction(i, since + i * MINUTE, prediction_id=f"{version}{server}{since}{i}", version=version, server=server)
        for i in range((until - since) // MINUTE)
    ]
    service.take(ndjson(events), "file")


def release(service: Service, version: str, action: str, at: datetime, **more: Any) -> None:
    event = {"type": "release", "model": "m", "version": version, "action": action, "timestamp": at.timestamp(), **more}
    service.take(ndjson([event]), "http")


def judged(service: Service) -> list[Finding]:
    service.take(ndjson([prediction(0, NOON - 2 * HOUR, server="pod-1")]), "file")
    model = service.registry.get("production", "m")
    window = Window("production", "m", NOON - HOUR, NOON)
    return [f for f in service.judge.traffic(model, window, NOON) if f.detector == "fleet"]


def told(findings: list[Finding]) -> list[str]:
    return [f.message for f in findings if f.severity >= 1]


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    return make_service(models={"m": {"windows": ["1h"]}})


def test_a_version_that_nobody_released_there_is_told(service: Service) -> None:
    release(service, "1", "deploy", NOON - 5 * HOUR)
    release(service, "3", "deploy", NOON - 4 * HOUR, servers=["pod-1"])
    for server in ("pod-1", "pod-7"):
        serve(service, "3", server, NOON - HOUR, NOON)
        serve(service, "1", server, NOON - HOUR, NOON)
    findings = judged(service)
    assert told(findings) == ["version 3 serves on pod-7, and nobody released it there"]
    verdicts = judge(Policy("map", "fleet", hold=1), findings, alpha=0.0)
    states = {(v.version, v.server): (v.state, v.value) for v in verdicts}
    assert states.pop(("3", "pod-7")) == ("drifted", 60.0)
    assert set(states.values()) == {("ok", 60.0)}


def test_where_nothing_is_announced_nothing_is_told(service: Service) -> None:
    serve(service, "3", "pod-7", NOON - HOUR, NOON)
    assert judged(service) == []


def test_what_served_before_anything_was_announced_is_not_told(service: Service) -> None:
    serve(service, "1", "pod-1", NOON - 3 * HOUR, NOON)
    release(service, "2", "deploy", NOON - HOUR)
    serve(service, "2", "pod-2", NOON - HOUR, NOON)
    assert told(judged(service)) == []


def test_an_announcement_may_come_a_little_late(service: Service) -> None:
    release(service, "1", "deploy", NOON - 5 * HOUR)
    serve(service, "2", "pod-1", NOON - 9 * MINUTE, NOON)
    assert told(judged(service)) == []


def test_a_retired_version_that_still_serves_is_told(service: Service) -> None:
    release(service, "1", "deploy", NOON - 5 * HOUR)
    release(service, "2", "deploy", NOON - 2 * HOUR)
    release(service, "1", "retire", NOON - 30 * MINUTE)
    serve(service, "1", "drained", NOON - 2 * HOUR, NOON - 25 * MINUTE)
    serve(service, "1", "stuck", NOON - 2 * HOUR, NOON)
    serve(service, "2", "stuck", NOON - HOUR, NOON)
    assert told(judged(service)) == ["version 1 serves on stuck, although it is retired"]
    release(service, "1", "rollback", NOON - 10 * MINUTE)
    assert told(judged(service)) == []


def ship(service: Service, server: str, delay: float, batches: int = 10, source: str = "kafka/t/0/log") -> None:
    """Batches of one server whose newest events are so many seconds old when they arrive."""
    for number in range(batches):
        arrived = NOON - 50 * MINUTE + number * MINUTE
        events = [prediction(i, arrived - timedelta(seconds=delay + i), server=server) for i in range(3)]
        lines = ndjson(events).split(b"\n")
        service.take_batch(lines, Origin(source, f"{server}{number}", arrived, [arrived.timestamp()] * 3))


def clocks(service: Service) -> dict[str, tuple[float | None, float]]:
    return {s["server"]: (s["clock_ahead_seconds"], s["arrival_delay_seconds"]) for s in service.servers(NOON)}


def test_a_clock_that_is_ahead_is_told(service: Service) -> None:
    for server in ("a", "b", "c"):
        ship(service, server, 0.5)
    ship(service, "d", -29.5)
    assert clocks(service) == {**dict.fromkeys("abc", (0.0, 0.5)), "d": (30.0, -29.5)}
    findings = judged(service)
    assert told(findings) == ["its clock is 30 s ahead"]
    assert {f.subject.server for f in findings} == {"a", "b", "c", "d"}


def test_a_clock_behind_is_not_told_from_a_slow_shipper(service: Service) -> None:
    for server in ("a", "b", "c"):
        ship(service, server, 0.5)
    ship(service, "d", 30.0)
    assert told(judged(service)) == []
    ship(service, "e", 90.5)
    assert told(judged(service)) == ["its events arrive 90 s later than others': its clock is behind, or it ships late"]


def test_one_odd_batch_is_no_clock(service: Service) -> None:
    for server in ("a", "b", "c"):
        ship(service, server, 0.5, batches=20)
    arrived = NOON - 5 * MINUTE
    line = ndjson([prediction(0, arrived + timedelta(seconds=60), server="a")])
    service.take_batch([line], Origin("kafka/t/0/log", "odd", arrived))
    assert told(judged(service)) == []
    assert clocks(service)["a"] == (0.0, 0.5)


def test_a_file_tells_nothing_of_clocks_and_a_replay_nothing_new(service: Service) -> None:
    ship(service, "a", 600.0, source="file")
    assert "clock_ahead_seconds" not in service.servers(NOON)[0]
    for _ in range(2):
        ship(service, "b", 0.5)
    findings = [f for f in judged(service) if f.subject.server == "b"]
    assert [f.n for f in findings] == [10]
    assert [f.message for f in findings] == ["10 batches of 1 servers; 5 of 3 are needed"]


def test_clocks_are_measured_the_same_line_by_line_and_in_columns(service: Service) -> None:
    # Clean lines become columns once there is a layout; odd ones never do.
    serve(service, "1", "pod-0", NOON - 5 * HOUR, NOON)
    service.references.layout_from_rows(service.registry.get("production", "m"), NOON)
    for number in range(5):
        arrived = NOON - 30 * MINUTE + number * MINUTE
        events = [
            prediction(i, arrived - timedelta(seconds=1 + i % 7), prediction_id=f"{number}-{i}", server=f"s{i % 2}")
            for i in range(100)
        ]
        events[7]["features"]["odd"] = 1
        events[7]["timestamp"] = (arrived - timedelta(seconds=0.25)).timestamp()
        service.take_batch(ndjson(events).split(b"\n"), Origin("http", f"b{number}", arrived))
    assert {s["server"]: s.get("arrival_delay_seconds") for s in service.servers(NOON)} == {
        "pod-0": None,
        "s0": 1.0,
        "s1": 0.25,
    }
