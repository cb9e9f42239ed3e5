"""A replay decides what the desk decided."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import BEGIN, HOUR, RULES, FakeTraffic, Office, accuracy_drop, finding, ledger_at, office

from alerts.ledger import Ledger
from alerts.policy import Policy
from alerts.replay import JudgedWindow, Replayed, replay
from detectors.finding import Finding, Status, Window

MINUTE = timedelta(minutes=1)
SERVERS = {"1": {"a": 60, "b": 60}, "2": {"c": 60, "d": 60}}
POLICIES = (
    Policy("inputs", "drift", hold=2, clear=2),
    Policy("quick", "drift", hold=1, clear=1, severity="page", window=6 * HOUR),
    Policy("servers", "server_outlier", hold=2, clear=3),
    Policy("worse", "accuracy_drop", hold=1, margin=0.01, severity="page"),
    Policy("slow", "latency", hold=2, limit=50.0),
    Policy("facts", "schema", hold=1, clear=1),
    Policy("elsewhere", "drift", models=("another",)),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with ledger_at(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        yield ledger


def moved(found: Finding, window: Window) -> Finding:
    return Finding(**{name: getattr(found, name) for name in Finding.__slots__} | {"window": window})


def some_findings(dice: random.Random, window: Window, troubles: dict[str, float]) -> Iterator[Finding]:
    """What a window could have: some features drift, servers differ, versions are slow, places are unsure or broken."""
    state = {0: Status.NOT_ENOUGH_DATA, 1: Status.ERROR}

    def drawn(detector: str, **more: Any) -> Finding:
        bad = dice.random() < troubles[detector]
        found = finding(
            detector,
            p=1e-12 if bad else dice.uniform(0.2, 1),
            severity=dice.uniform(1, 3) if bad else dice.uniform(0, 0.9),
            value=dice.uniform(80, 90) if bad else dice.uniform(5, 20),
            effects={"above_1e-09": dice.uniform(60, 70)} if bad else {},
            status=state.get(dice.randrange(12), Status.MEASURED),
            message=dice.choice(["", "something was seen"]),
            **more,
        )
        return moved(found, window)

    for feature in ("age", "income", "@score"):
        yield drawn("drift", feature=feature)
        yield drawn("drift", feature=feature, without=("server=c",))
    for version, servers in SERVERS.items():
        yield drawn("latency", version=version)
        yield drawn("schema", version=version, feature="age")
        for server in servers:
            yield drawn("server_outlier", baseline="fleet", version=version, server=server, feature="age")


def some_windows(dice: random.Random, hours: int) -> list[JudgedWindow]:
    """Windows of two lengths in the order in which they are judged; labels come three hours late."""
    windows = []
    troubles = dict.fromkeys(("drift", "latency", "schema", "server_outlier"), 0.0)
    for end in range(1, hours + 1):
        if end % 5 == 0:
            troubles = {detector: dice.choice([0.0, 0.0, 0.1, 0.9]) for detector in troubles}
        until = BEGIN + end * HOUR
        for length in (HOUR, 6 * HOUR):
            window = Window("production", "churn", until - length, until)
            if (until - BEGIN) % length == timedelta(0):
                windows.append(JudgedWindow(window, until + 5 * MINUTE, [*some_findings(dice, window, troubles)]))
        if end > 3:
            window = Window("production", "churn", until - 4 * HOUR, until - 3 * HOUR)
            drop = moved(accuracy_drop(0, 0.5 if dice.random() < 0.3 else 0.0), window)
            windows.append(JudgedWindow(window, until + 5 * MINUTE, [drop]))
    return windows


def told_by(office: Office) -> list[tuple[Any, ...]]:
    """Each incident as the time line tells it: when it was found and over, where, and with which features."""
    told: list[list[Any]] = []
    for entry in office.ledger.timeline(limit=10_000):
        if entry.event.startswith("alert_"):
            continue
        data = entry.data
        if entry.event.endswith("_found"):
            place = (data["policy"], data["version"], data["server"], data["segment"])
            told.append([data["incident"], entry.at, *place, tuple(data["features"]), data["value"], None, ""])
        else:
            going_on = next(t for t in told if t[0] == data["incident"] and t[-2] is None)
            going_on[-2:] = [entry.at, data["reason"]]
    return sorted(map(tuple, told), key=str)


def replayed_incidents(replayed: list[Replayed]) -> list[tuple[Any, ...]]:
    told = []
    for each in replayed:
        for f in each.firings:
            i = f.incident
            place = (i.policy, i.version, i.server, i.segment)
            told.append((i.key, i.since, *place, i.features, i.value, f.until, f.ended))
    return sorted(told, key=str)


@pytest.mark.parametrize("seed", [3, 5])
def test_the_same_incidents_as_at_the_desk(ledger: Ledger, seed: int) -> None:
    dice = random.Random(seed)
    place = office(ledger, *POLICIES)
    place.traffic.serve(BEGIN - 9 * HOUR, v1=SERVERS["1"], v2=SERVERS["2"])
    place.traffic.serve(BEGIN + 14 * HOUR, v1=SERVERS["1"], v2={"c": 60})
    place.traffic.serve(BEGIN + 22 * HOUR, v1=SERVERS["1"])
    windows = some_windows(dice, 30)
    for judged in windows:
        place.desk.take(judged.at, RULES, judged.findings, judged.window.end - judged.window.start)
        place.desk.follow(judged.at, RULES)
    replayed = replay(POLICIES, RULES, windows, place.traffic)
    expected = told_by(place)
    assert replayed_incidents(replayed) == expected
    assert {i[2] for i in expected} == {"inputs", "quick", "servers", "worse", "slow", "facts"}
    assert any("no longer serves" in i[-1] for i in expected)
    firing = {f.incident.key for each in replayed for f in each.firings if f.until is None}
    assert firing == {i.key for i in ledger.open_incidents()}


def windows_of(*findings: list[Finding]) -> list[JudgedWindow]:
    return [
        JudgedWindow(moved_to := _window(i), moved_to.end, [moved(f, moved_to) for f in each])
        for i, each in enumerate(findings)
    ]


def _window(number: int) -> Window:
    start: datetime = BEGIN + number * HOUR
    return Window("production", "churn", start, start + HOUR)


def test_windows_are_counted_by_what_they_were() -> None:
    drift = finding("drift", p=1e-9, feature="age")
    fine = finding("drift", p=0.5, feature="age")
    few = finding("drift", status=Status.NOT_ENOUGH_DATA, feature="age")
    broken = finding("drift", status=Status.ERROR, feature="age")
    elsewhere = finding("drift", status=Status.NOT_ENOUGH_DATA, version="2", feature="age")
    windows = windows_of([drift], [fine], [few], [broken], [fine, elsewhere], [])
    (inputs,) = replay([Policy("inputs", "drift", hold=1)], RULES, windows, FakeTraffic())
    assert inputs.windows == {"drifted": 1, "error": 1, "ok": 2, "unsure": 1}


def test_an_action_is_named_and_an_incident_that_is_open_has_no_end() -> None:
    policy = Policy("worse", "accuracy_drop", hold=1, severity="page", action="back")
    traffic = FakeTraffic()
    traffic.serve(BEGIN - HOUR, v1={"a": 60}, v2={"b": 60})
    (worse,) = replay([policy], RULES, windows_of([accuracy_drop(0, 0.5)]), traffic)
    (fired,) = worse.firings
    told = fired.to_dict()
    assert (told["action"], told["until"], told["version"]) == ("back", None, "2")
    assert told["since"] == (BEGIN + HOUR).isoformat()
