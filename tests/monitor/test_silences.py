"""Servers, versions and models that go silent, and what explains it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from alerts.incidents import Incident
from alerts.policy import Policy, judge
from alerts.serving import has_gone
from detectors.finding import Finding, Status, Window
from monitor.folding import mark
from monitor.service import Service

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
BEGIN = NOON - 16 * DAY
Rate = Callable[[datetime], int]


def serve(
    service: Service,
    server: str,
    rate: Rate | int = 5,
    version: str = "1",
    since: datetime = BEGIN,
    until: datetime = NOON,
) -> None:
    """Rows per minute, as if they had been taken in."""
    minutes = [since + i * MINUTE for i in range((until - since) // MINUTE)]
    rows = [rate(at) if callable(rate) else rate for at in minutes]
    table = pl.DataFrame({"minute": minutes, "n": pl.Series(rows, dtype=pl.UInt64)}).filter(pl.col("n") > 0)
    nothing = pl.lit([], pl.List(pl.UInt32))
    texts = {
        "environment": "production",
        "model": "m",
        "version": version,
        "server": server,
        "role": "live",
        "segment": "",
        "layout_id": "",
        "source": "test",
        "batch": f"{server}{version}{since}",
    }
    whole = table.with_columns(
        *(pl.lit(value).alias(name) for name, value in texts.items()),
        pl.lit(1.0).alias("weight"),
        *(pl.lit(0, pl.UInt64).alias(name) for name in ("failed", "undeclared")),
        *(nothing.alias(name) for name in ("cells", "counts")),
    )
    service.store.insert("profile_batches", whole)
    mark(service.store, whole)


def judged(service: Service, end: datetime = NOON) -> list[Finding]:
    model = service.registry.get("production", "m")
    window = Window("production", "m", end - HOUR, end)
    return [f for f in service.judge.traffic(model, window, end) if f.detector == "silence"]


def silent(findings: list[Finding]) -> list[tuple[str, str]]:
    return sorted((f.subject.version, f.subject.server) for f in findings if f.severity >= 1)


def explained(findings: list[Finding]) -> dict[tuple[str, str], str]:
    return {
        (f.subject.version, f.subject.server): f.message.partition(": ")[2]
        for f in findings
        if f.component == "silent" and not f.severity
    }


def release(service: Service, version: str, action: str, at: datetime, **more: Any) -> None:
    event = {"type": "release", "model": "m", "version": version, "action": action, "timestamp": at.timestamp(), **more}
    service.take(ndjson([event]), "http")


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    service = make_service(models={"m": {"windows": ["1h"]}})
    service.take(ndjson([prediction(0, BEGIN, server="a")]), "http")
    return service


def test_who_serves_is_not_silent(service: Service) -> None:
    for server in "abc":
        serve(service, server)
    findings = judged(service)
    assert silent(findings) == []
    places = {(f.subject.version, f.subject.server): f.status for f in findings}
    assert places == dict.fromkeys([("", ""), ("1", ""), ("", "a"), ("", "b"), ("", "c")], Status.MEASURED)


def test_a_dead_server_is_silent_and_nobody_else(service: Service) -> None:
    for server in "ab":
        serve(service, server)
    serve(service, "c", until=NOON - 50 * MINUTE)
    findings = judged(service)
    assert silent(findings) == [("", "c")]
    dead = next(f for f in findings if f.severity >= 1)
    assert dead.message == "silent for 50 minutes, in which 167 rows were expected"
    assert dead.n == 50


def test_a_quiet_night_is_no_silence(service: Service) -> None:
    def by_day(at: datetime) -> int:
        return 5 if at.hour not in range(6) else int(at.minute % 30 == 0)

    for server in "abc":
        serve(service, server, by_day)
    assert silent(judged(service, NOON - 8 * HOUR)) == []
    assert silent(judged(service, NOON - 11 * HOUR)) == []


def test_a_model_that_never_paused_and_does_is_silent(service: Service) -> None:
    for server in "abc":
        serve(service, server, until=NOON - 40 * MINUTE)
    assert silent(judged(service)) == [("", "")]
    release(service, "1", "retire", NOON - 40 * MINUTE)
    findings = judged(service)
    assert silent(findings) == []
    assert explained(findings) == {("", ""): "all versions are retired"}


def test_a_model_that_rests_at_night_is_not(service: Service) -> None:
    serve(service, "a", lambda at: 5 * (at.hour not in range(6)))
    assert silent(judged(service, NOON - 8 * HOUR)) == []


def test_a_new_model_is_not_judged(service: Service) -> None:
    serve(service, "a", since=NOON - 30 * HOUR, until=NOON - HOUR)
    assert [f.status for f in judged(service) if not f.subject.server and not f.subject.version] == [
        Status.NOT_ENOUGH_DATA
    ]


def test_a_version_that_another_one_follows_is_not_silent(service: Service) -> None:
    for server in "abc":
        serve(service, server, until=NOON - 2 * HOUR)
        serve(service, server, version="2", since=NOON - 2 * HOUR)
    findings = judged(service)
    assert silent(findings) == []
    assert explained(findings) == {("1", ""): "version 2 took over on a, b, c"}


def test_a_version_that_is_retired_is_not_silent(service: Service) -> None:
    serve(service, "a")
    serve(service, "b", version="2", until=NOON - 2 * HOUR)
    assert silent(judged(service)) == [("", "b"), ("2", "")]
    release(service, "2", "retire", NOON - 2 * HOUR)
    findings = judged(service)
    assert silent(findings) == []
    assert explained(findings) == {("2", ""): "it is retired", ("", "b"): "what it served is retired"}


def test_a_version_that_dies_on_its_own_servers_is_silent(service: Service) -> None:
    serve(service, "a")
    serve(service, "b", version="2", until=NOON - 2 * HOUR)
    release(service, "2", "deploy", NOON - 10 * DAY)
    findings = judged(service)
    assert silent(findings) == [("", "b"), ("2", "")]


def test_servers_that_others_replace_are_not_silent(service: Service) -> None:
    for old, new in (("pod-1", "pod-3"), ("pod-2", "pod-4")):
        serve(service, old, until=NOON - 3 * HOUR)
        serve(service, new, version="2", since=NOON - 3 * HOUR)
    findings = judged(service)
    assert silent(findings) == []
    assert explained(findings) == {
        ("", "pod-1"): "pod-3, pod-4 came in its place",
        ("", "pod-2"): "pod-3, pod-4 came in its place",
        ("1", ""): "version 2 took over on pod-3, pod-4",
    }


def test_where_servers_come_and_go_their_silence_tells_nothing(service: Service) -> None:
    for server in "ab":
        serve(service, server)
    for number, days in enumerate((4, 3, 2)):
        serve(service, f"extra-{number}", since=NOON - 8 * DAY, until=NOON - days * DAY)
    serve(service, "c", until=NOON - HOUR)
    assert explained(judged(service))["", "c"] == "servers of this model come and go"


def test_who_has_been_silent_for_days_is_taken_for_gone(service: Service) -> None:
    for server in "ab":
        serve(service, server)
    serve(service, "c", until=NOON - 47 * HOUR)
    serve(service, "d", until=NOON - 49 * HOUR)
    serve(service, "e", until=NOON - 130 * HOUR)
    findings = judged(service)
    assert silent(findings) == [("", "c")]
    assert explained(findings) == {("", "d"): "it is taken for gone"}
    assert "e" not in {f.subject.server for f in findings}


def import_history(service: Service, server: str, until: datetime) -> None:
    minutes = [until - n * 2 * MINUTE for n in range(1, 20 * 30)]
    rows = [prediction(n, at, server=server, prediction_id=f"{server}{n}") for n, at in enumerate(minutes)]
    service.take(ndjson(rows), "file", key=server)


def test_a_server_of_which_only_imports_tell_is_not_silent(service: Service) -> None:
    for server in "ab":
        serve(service, server)
    import_history(service, "c", NOON - 3 * HOUR)
    import_history(service, "d", NOON - 3 * HOUR)
    service.take(ndjson([prediction(9, NOON - 4 * HOUR, server="d")]), "http")
    findings = judged(service)
    assert silent(findings) == [("", "d")], "it sends by itself, too"
    assert explained(findings) == {("", "c"): "only imported files tell of it"}


def test_a_model_of_which_only_imports_tell_is_not_silent(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"m": {"windows": ["1h"]}})
    serve(service, "a", until=NOON - 2 * HOUR)
    import_history(service, "a", NOON - 2 * HOUR)
    findings = judged(service)
    assert silent(findings) == []
    assert explained(findings)["", ""] == "only imported files tell of it"


def test_without_minutes_nothing_is_said(service: Service) -> None:
    for server in "abc":
        serve(service, server)
    judged(service)
    service.store.execute("DELETE FROM profile_batches WHERE model = 'm'")
    assert judged(service) == []


def test_a_silence_is_told_and_ends(service: Service) -> None:
    policy = Policy("quiet", "silence", hold=1)
    serve(service, "a")
    serve(service, "b")
    serve(service, "c", until=NOON - HOUR)
    verdicts = {(v.version, v.server): v for v in judge(policy, judged(service), alpha=0.0)}
    dead = verdicts["", "c"]
    assert (dead.state, dead.value) == ("drifted", 200.0)
    assert dead.reason == "silent for 60 minutes, in which 200 rows were expected"
    assert {v.state for place, v in verdicts.items() if place != ("", "c")} == {"ok"}
    assert Incident.of(policy, dead).watch == "silence"
    for server in "abc":
        serve(service, server, since=NOON, until=NOON + HOUR)
    assert {v.state for v in judge(policy, judged(service, NOON + HOUR), alpha=0.0)} == {"ok"}


def test_an_incident_of_silence_does_not_end_because_of_the_silence() -> None:
    lately = {"1": {"a": 1000}}
    assert has_gone(lately, "errors", "", "c")
    assert not has_gone(lately, "silence", "", "c")
