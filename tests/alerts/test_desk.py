"""From findings to alerts, rollbacks and their proof."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import (
    BEGIN,
    HOUR,
    KEY_TEXT,
    RULES,
    Office,
    Receiver,
    accuracy_drop,
    finding,
    in_threads,
    ledger_at,
    office,
    take,
    webhook,
    window,
)

from alerts.actions.rollback import Rollback
from alerts.ledger import BadCallbackError, Claim, Ledger, UnknownActionError, WrongTokenError
from alerts.policy import Policy
from alerts.signing import secret_bytes, verify
from detectors.finding import Finding, Status, Window

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
DRIFT = Policy("inputs", "drift")
WORSE = Policy("worse", "accuracy_drop", severity="page", notify=("ops",), action="back")
BACK = Rollback("rollback", "ci", dry_run=False)
BOTH = {"1": {"a": 60, "b": 60}, "2": {"c": 60}}


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with ledger_at(ledger_url) as ledger:
        yield ledger


def drift(number: int, *, p: float = 1e-9, **subject: Any) -> Finding:
    return finding("drift", number, p=p, feature="age", **subject)


def serving(place: Office) -> Office:
    place.traffic.serve(BEGIN - HOUR, v1=BOTH["1"], v2=BOTH["2"])
    return place


def follow(place: Office, at: datetime) -> list[str]:
    before = len(place.events())
    place.desk.follow(at, RULES)
    return place.events()[before:]


def tell(place: Office, number: int, findings: Sequence[Finding]) -> list[str]:
    before = len(place.events())
    take(place, number, findings)
    return place.events()[before:]


# Found and cleared


def test_drift_is_found_after_hold_and_cleared_after_clear(ledger: Ledger) -> None:
    place = office(ledger, DRIFT)
    told = [tell(place, i, [drift(i, p=p)]) for i, p in enumerate([1e-9, 1e-9, 1e-9, 0.5, 0.5, 0.5])]
    assert told == [[], ["drift_found"], [], [], ["drift_cleared"], []]
    (line,) = place.lines("drift_found")
    assert line["at"] == "2026-03-02T02:05:00Z"
    assert (line["model"], line["features"], line["value"], line["policy"]) == ("churn", ["age"], 0.1, "inputs")


def test_the_same_window_again_changes_nothing(ledger: Ledger) -> None:
    place = office(ledger, DRIFT)
    assert [tell(place, i, [drift(i)]) for i in (0, 0, 0, 1, 1, 0)] == [[], [], [], ["drift_found"], [], []]


def test_no_data_neither_finds_nor_clears(ledger: Ledger) -> None:
    place = office(ledger, DRIFT)
    nothing = [finding("drift", i, status=Status.NOT_ENOUGH_DATA, feature="age") for i in range(9)]
    windows = [drift(0), nothing[1], drift(2), nothing[3], nothing[4], nothing[5]]
    assert [tell(place, i, [f]) for i, f in enumerate(windows)] == [[], [], ["drift_found"], [], [], []]
    assert len(ledger.open_incidents()) == 1


def test_windows_of_another_length_do_not_count(ledger: Ledger) -> None:
    place = office(ledger, DRIFT)
    place.desk.take(window(0).end, RULES, [drift(0)], HOUR)
    place.desk.take(window(1).end, RULES, [drift(1)], 6 * HOUR)
    assert place.events() == []


def test_a_server_is_named_and_its_drift_is_not_the_models(ledger: Ledger) -> None:
    place = serving(office(ledger, Policy("servers", "server_outlier", hold=1), Policy("inputs", "drift", hold=1)))
    findings = [
        finding("server_outlier", 0, p=1e-12, baseline="fleet", version="2", server="c", feature="age"),
        finding("server_outlier", 0, p=0.5, baseline="fleet", version="1", server="a", feature="age"),
        drift(0),
        drift(0, p=0.5, without=("server=c",), effects={"shared_high": 0.1}),
    ]
    assert tell(place, 0, findings) == ["server_outlier_found"]
    (line,) = place.lines("server_outlier_found")
    assert (line["server"], line["version"], line["features"]) == ("c", "2", ["age"])


def test_an_incident_is_told_in_the_order_of_the_policies(ledger: Ledger) -> None:
    policies = [Policy("b", "drift", hold=1, severity="page"), Policy("a", "latency", hold=1, limit=5.0)]
    place = office(ledger, *policies)
    findings = [finding("latency", 0, value=9.0, effects={"above_1e-12": 8.0}), drift(0)]
    assert tell(place, 0, findings) == ["drift_found", "alert_firing", "latency_found"]


def test_verdicts_are_given_without_deciding_anything(ledger: Ledger) -> None:
    place = office(ledger, Policy("inputs", "drift", hold=1), Policy("daily", "drift", window=24 * HOUR))
    verdicts = place.desk.verdicts(RULES, [drift(0), drift(1, p=0.5)])
    assert [(v["policy"], v["start"][11:16], v["state"], v["features"]) for v in verdicts] == [
        ("inputs", "00:00", "drifted", ["age"]),
        ("inputs", "01:00", "ok", []),
    ]
    assert place.events() == []


def test_desks_that_meet_an_incident_for_the_first_time_at_once_make_one_of_it(ledger: Ledger) -> None:
    together = threading.Barrier(4, timeout=10)
    servers = [f"s{i}" for i in range(20)]

    def meet(_: int) -> None:
        place = office(ledger, Policy("inputs", "server_outlier", hold=1))
        for server in servers:
            together.wait()
            take(place, 0, [finding("server_outlier", 0, p=1e-9, baseline="fleet", server=server, feature="age")])

    in_threads(4, meet)
    assert [e.data["server"] for e in ledger.timeline()] == servers


# Pages


def test_a_notice_is_sent_to_nobody_and_a_page_to_its_notifiers(ledger: Ledger, tmp_path: Path) -> None:
    with Receiver() as ops:
        page = Policy("page", "drift", severity="page", notify=("ops",))
        notifiers = {"ops": webhook(ops.url, tmp_path), "other": webhook(ops.url + "/other", tmp_path)}
        place = office(ledger, DRIFT, page, notifiers=notifiers)
        for i, p in enumerate([1e-9, 1e-9, 0.5, 0.5]):
            tell(place, i, [drift(i, p=p, segment="country=de")])
            place.desk.deliver(window(i).end + 5 * MINUTE)
    assert place.events() == [
        *("drift_found", "drift_found", "alert_firing"),
        *("drift_cleared", "drift_cleared", "alert_resolved"),
    ]
    firing, resolved = [r.message for r in ops.received]
    assert (firing["type"], resolved["type"]) == ("telltale.alert.firing", "telltale.alert.resolved")
    assert firing["timestamp"] == "2026-03-02T02:05:00Z"
    assert firing["data"]["id"] == resolved["data"]["id"]
    assert firing["data"].items() >= {"policy": "page", "model": "churn", "features": ["age"], "watch": "drift"}.items()
    assert firing["data"]["subject"] == {"version": "", "server": "", "segment": "country=de"}
    assert firing["data"]["summary"] == "drift of churn, segment country=de: age"


# Versions and servers that have gone


def test_late_labels_do_not_accuse_a_version_that_has_gone(ledger: Ledger) -> None:
    place = office(ledger, Policy("worse", "accuracy_drop", hold=1))
    place.traffic.serve(BEGIN, v1={"a": 60}, v2={"c": 60})
    place.traffic.serve(window(3).end - 6 * MINUTE, v1={"a": 60})
    assert tell(place, 3, [accuracy_drop(3, 0.5)]) == []  # eleven minutes later
    assert ledger.open_incidents() == []


def test_a_version_that_still_serves_is_accused(ledger: Ledger) -> None:
    place = serving(office(ledger, Policy("worse", "accuracy_drop", hold=1)))
    assert tell(place, 0, [accuracy_drop(0, 0.5)]) == ["accuracy_drop_found"]
    (line,) = place.lines("accuracy_drop_found")
    assert (line["version"], line["baseline_version"], line["value"]) == ("2", "1", 0.5)


@pytest.mark.parametrize("watch", ["server_outlier", "version_contrast", "errors"])
def test_an_incident_ends_when_its_version_no_longer_serves(ledger: Ledger, watch: Any) -> None:
    page = Policy("p", watch, hold=1, severity="page", limit=0.1 if watch == "errors" else None)
    place = serving(office(ledger, page))
    found = finding(watch, 0, p=1e-9, value=0.5, baseline="version:1", version="2", server="c")
    assert tell(place, 0, [found]) == [f"{watch}_found", "alert_firing"]
    place.traffic.serve(BEGIN + 2 * HOUR, v1=BOTH["1"])
    assert follow(place, BEGIN + 2 * HOUR + 9 * MINUTE) == []
    assert follow(place, BEGIN + 2 * HOUR + 10 * MINUTE) == [f"{watch}_cleared", "alert_resolved"]
    (line,) = place.lines("alert_resolved")
    assert line["reason"] == "version 2 on server c no longer serves"
    assert follow(place, BEGIN + 3 * HOUR) == []


def test_a_model_without_traffic_ends_no_incident(ledger: Ledger) -> None:
    place = serving(office(ledger, Policy("worse", "accuracy_drop", hold=1)))
    tell(place, 0, [accuracy_drop(0, 0.5)])
    place.traffic.serve(BEGIN + 2 * HOUR)
    for hours in (3, 10, 100):
        assert follow(place, BEGIN + hours * HOUR) == []
    assert len(ledger.open_incidents()) == 1


def test_a_pausing_model_is_judged_by_its_latest_traffic(ledger: Ledger) -> None:
    """A nightly batch: nothing serves in the ten minutes before labels are judged."""
    place = office(ledger, Policy("worse", "accuracy_drop", hold=1))
    place.traffic.serve(BEGIN, v1={"a": 60}, v2={"c": 60})
    place.traffic.serve(BEGIN + HOUR)
    assert tell(place, 8, [accuracy_drop(8, 0.5)]) == ["accuracy_drop_found"]
    place.traffic.serve(BEGIN + 24 * HOUR, v1={"a": 60})
    place.traffic.serve(BEGIN + 25 * HOUR)
    assert follow(place, BEGIN + 40 * HOUR) == ["accuracy_drop_cleared"]


def test_a_rare_version_is_not_taken_for_gone(ledger: Ledger) -> None:
    """Two rows a minute, none of them version 2 for a quarter of an hour: too few to say."""
    place = office(ledger, Policy("worse", "accuracy_drop", hold=1))
    place.traffic.serve(BEGIN, v1={"a": 2}, v2={"c": 1})
    tell(place, 0, [accuracy_drop(0, 0.5)])
    place.traffic.serve(BEGIN + 2 * HOUR, v1={"a": 2})
    assert follow(place, BEGIN + 2 * HOUR + 15 * MINUTE) == []
    assert follow(place, BEGIN + 2 * HOUR + 160 * MINUTE) == ["accuracy_drop_cleared"]


def test_a_dead_server_does_not_become_healthy_by_getting_no_traffic(ledger: Ledger) -> None:
    place = serving(office(ledger, Policy("probes", "health", hold=1, limit=0.1)))
    place.traffic.serve(BEGIN, v1=BOTH["1"])
    assert tell(place, 0, [finding("health", 0, value=1.0, n=60, server="c")]) == ["health_found"]
    assert follow(place, BEGIN + 9 * HOUR) == []


def test_an_incident_of_a_policy_that_is_gone_is_closed(ledger: Ledger) -> None:
    tell(office(ledger, Policy("inputs", "drift", hold=1, severity="page")), 0, [drift(0)])
    renamed = office(ledger, Policy("features", "drift", hold=1))
    assert follow(renamed, BEGIN + 2 * HOUR) == ["drift_cleared", "alert_resolved"]
    assert renamed.lines("alert_resolved")[0]["reason"] == "policy inputs no longer watches it"


def test_a_change_that_goes_on_in_longer_windows_is_not_over(ledger: Ledger) -> None:
    place = office(ledger, Policy("inputs", "drift", hold=1, clear=1), Policy("daily", "drift", hold=1, window=DAY))
    day = Window("production", "churn", BEGIN - DAY, BEGIN)
    assert place.desk.take(BEGIN, RULES, [replace(drift(0), window=day)], DAY)
    assert tell(place, 0, [drift(0)]) == ["drift_found"]
    assert tell(place, 1, [drift(1, p=0.5)]) == ["drift_cleared"]
    (line,) = place.lines("drift_cleared")
    assert line["reason"] == "age no longer in windows of 1 h, goes on in those of 24 h"


def test_a_change_that_is_a_servers_by_now_is_not_over(ledger: Ledger) -> None:
    policies = (Policy("servers", "server_outlier", hold=1), Policy("inputs", "drift", hold=1, clear=1))
    place = serving(office(ledger, *policies))
    assert tell(place, 0, [drift(0)]) == ["drift_found"]
    odd = finding("server_outlier", 1, p=1e-12, baseline="fleet", version="2", server="c", feature="age")
    rest = drift(1, p=0.5, without=("server=c",), effects={"shared_high": 0.1})
    assert tell(place, 1, [odd, drift(1), rest]) == ["server_outlier_found", "drift_cleared"]
    assert place.lines("drift_cleared")[0]["reason"] == "age explained by server c"


# Windows that are judged again, as rows came late


def claimed(place: Office, number: int, kind: str, at: datetime) -> Claim:
    span = window(number)
    claim = Claim("production", "churn", kind, span.start, span.end, "me")
    assert place.ledger.claim(claim, at, HOUR)
    return claim


def first(place: Office, number: int, findings: Sequence[Finding], kind: str = "traffic:3600s") -> list[str]:
    at, before = window(number).end + 5 * MINUTE, len(place.events())
    assert place.desk.take(at, RULES, findings, HOUR, claimed(place, number, kind, at))
    return place.events()[before:]


def again(
    place: Office, number: int, findings: Sequence[Finding], marks: int, kind: str = "traffic:3600s"
) -> list[str]:
    """Two hours later."""
    at, before = window(number).end + 125 * MINUTE, len(place.events())
    assert place.desk.take_again(at, RULES, findings, claimed(place, number, f"{kind} at {marks}", at), 9)
    return place.events()[before:]


@pytest.mark.parametrize(
    ("p", "times", "found"), [(0.0006, 1, False), (0.0002, 1, True), (0.0002, 2, False), (0.00009, 2, True)]
)
def test_what_is_judged_again_is_held_against_what_is_left_of_the_reserve(
    ledger: Ledger, p: float, times: int, found: bool
) -> None:
    """Alpha is 0.0054 at first, then 0.0003, a third of that, and so on."""
    place = office(ledger, Policy("inputs", "drift", hold=1))
    assert first(place, 0, [drift(0, p=0.5)]) == []
    for marks in range(times - 1):
        assert again(place, 0, [drift(0, p=0.5)], marks) == ["judged_again"]
    assert again(place, 0, [drift(0, p=p)], 9) == ["judged_again", *(["drift_found"] if found else [])]
    assert [line["late"] for line in place.lines("drift_found")] == [True] * found


def test_windows_that_were_judged_again_do_not_flap(ledger: Ledger) -> None:
    place = serving(office(ledger, DRIFT))
    told = []
    for number in range(8):
        told += first(place, number, [drift(number, p=0.5)])
        told += again(place, number - 2, [drift(number - 2)], 1) if number > 1 else []
        told += follow(place, window(number).end + 130 * MINUTE)
    assert [event for event in told if event != "judged_again"] == ["drift_found"]


def test_a_lost_claim_decides_nothing(ledger: Ledger) -> None:
    place = office(ledger, Policy("inputs", "drift", hold=1))
    first(place, 0, [drift(0, p=0.5)])
    lost = Claim("production", "churn", "traffic:3600s at 4", window(0).start, window(0).end, "me")
    assert not place.desk.take_again(BEGIN + 4 * HOUR, RULES, [drift(0)], lost, 9)
    assert place.events() == []


def test_a_server_whose_rows_come_late_has_not_gone(ledger: Ledger) -> None:
    """When its window is judged first it serves; of the last hours none of its rows are there yet."""
    place = serving(office(ledger, Policy("servers", "server_outlier", hold=1)))
    place.traffic.serve(window(0).end + 6 * MINUTE, v1=BOTH["1"])
    odd = finding("server_outlier", 0, p=1e-12, baseline="fleet", version="2", server="c", feature="age")
    assert first(place, 0, []) == []
    assert again(place, 0, [odd], 1) == ["judged_again", "server_outlier_found"]
    assert follow(place, window(0).end + 126 * MINUTE) == []
    assert follow(place, window(0).end + 3 * HOUR) == ["server_outlier_cleared"]
    assert place.lines("server_outlier_cleared")[0]["reason"] == "version 2 on server c no longer serves"


def test_labels_that_come_late_do_not_accuse_a_version_that_has_gone(ledger: Ledger) -> None:
    place = serving(office(ledger, Policy("worse", "accuracy_drop", hold=1)))
    assert first(place, 0, [accuracy_drop(0, 0.0)], "labels:3600s") == []
    place.traffic.serve(window(0).end + 30 * MINUTE, v1=BOTH["1"])
    assert again(place, 0, [accuracy_drop(0, 0.5)], 1, "labels:3600s") == ["judged_again"]


def test_a_rollback_on_late_rows_has_the_same_guards(ledger: Ledger, tmp_path: Path) -> None:
    notifiers = {"ci": webhook("http://127.0.0.1:1/", tmp_path)}
    policy = Policy("worse", "accuracy_drop", hold=1, severity="page", action="back")
    place = serving(office(ledger, policy, notifiers=notifiers, actions={"back": BACK}))
    first(place, 0, [accuracy_drop(0, 0.0)], "labels:3600s")
    told = ["judged_again", "accuracy_drop_found", "alert_firing", "rollback_requested"]
    assert again(place, 0, [accuracy_drop(0, 0.5)], 1, "labels:3600s") == told
    first(place, 1, [accuracy_drop(1, 0.0, "1")], "labels:3600s")
    assert again(place, 1, [accuracy_drop(1, 0.5, "1")], 1, "labels:3600s")[-1] == "rollback_refused"


# Rollback


class Story:
    """Version 2 turns out worse while both serve; ops and the pipeline are real receivers."""

    def __init__(self, ledger: Ledger, folder: Path, ops: Receiver, ci: Receiver, rollback: Rollback = BACK) -> None:
        self.ci = ci
        notifiers = {"ops": webhook(ops.url, folder), "ci": webhook(ci.url, folder)}
        base = "https://telltale.example"
        self.place = serving(office(ledger, WORSE, notifiers=notifiers, actions={"back": rollback}, callback_base=base))

    def accuse(self) -> datetime:
        """Two windows of worse accuracy; the time of the request, delivered."""
        for i in range(2):
            tell(self.place, i, [accuracy_drop(i, 0.5)])
        self.now = window(1).end + 5 * MINUTE
        self.place.desk.deliver(self.now)
        return self.now

    def pipeline_puts_version_1_back(self) -> None:
        self.place.traffic.serve(self.now + MINUTE, v1={"a": 60, "b": 60, "c": 60})

    @property
    def command(self) -> dict[str, Any]:
        data: dict[str, Any] = self.ci.received[-1].message["data"]
        return data


@pytest.fixture
def ops() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def ci() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def story(ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver) -> Story:
    return Story(ledger, tmp_path, ops, ci)


def test_the_whole_way_from_worse_accuracy_to_a_proven_rollback(story: Story, ops: Receiver, ci: Receiver) -> None:
    requested = story.accuse()
    place = story.place
    found = ["accuracy_drop_found", "alert_firing", "rollback_requested", "rollback_dispatched"]
    assert place.events() == found

    (request,) = ci.received
    verify(secret_bytes(KEY_TEXT), request.headers, request.body, requested)
    assert request.message["type"] == "telltale.rollback.requested"
    assert story.command.items() >= {"version_accused": "2", "version_target": "1", "dry_run": False}.items()
    assert story.command["expires_at"] == "2026-03-02T02:20:00Z"
    assert story.command["callback"]["url"] == f"https://telltale.example/v1/actions/{story.command['id']}/events"
    assert [r.message["type"] for r in ops.received] == ["telltale.alert.firing"]

    story.pipeline_puts_version_1_back()
    told = [follow(place, requested + i * MINUTE) for i in range(1, 16)]
    assert [(i, events) for i, events in enumerate(told, 1) if events] == [
        (6, ["rollback_effective"]),  # five minutes with nothing but version 1
        (11, ["accuracy_drop_cleared", "alert_resolved"]),  # ten minutes without version 2
    ]
    place.desk.deliver(requested + 20 * MINUTE)
    assert [r.message["type"] for r in ops.received] == ["telltale.alert.firing", "telltale.alert.resolved"]

    requested_line, effective = place.lines("rollback_requested")[0], place.lines("rollback_effective")[0]
    assert requested_line.items() >= {"version": "2", "baseline_version": "1", "action_id": story.command["id"]}.items()
    assert (
        effective.items()
        >= {
            "version": "2",
            "baseline_version": "1",
            "value": 1.0,
            "action_id": story.command["id"],
        }.items()
    )
    assert "dry_run" not in requested_line


def test_proof_comes_before_the_all_clear_even_where_it_takes_longer(
    ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver
) -> None:
    slow = Rollback("rollback", "ci", dry_run=False, settle=30 * MINUTE, effect_within=HOUR)
    story = Story(ledger, tmp_path, ops, ci, slow)
    requested = story.accuse()
    story.pipeline_puts_version_1_back()
    for i in range(2, 6):
        tell(story.place, i, [accuracy_drop(i, -0.5)])  # clear windows meanwhile do not end it either
    told = [event for i in range(1, 60) for event in follow(story.place, requested + i * MINUTE)]
    assert told == ["rollback_effective", "accuracy_drop_cleared", "alert_resolved"]


def test_a_rollback_that_shows_no_effect_in_time_is_ineffective(story: Story) -> None:
    requested = story.accuse()
    told = {i: follow(story.place, requested + i * MINUTE) for i in range(1, 30)}
    assert {i: events for i, events in told.items() if events} == {15: ["rollback_ineffective"]}
    assert len(story.place.ledger.open_incidents()) == 1
    (line,) = story.place.lines("rollback_ineffective")
    assert line["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_a_dead_service_is_no_effective_rollback(story: Story) -> None:
    requested = story.accuse()
    story.place.traffic.serve(requested + MINUTE)
    told = [event for i in range(1, 30) for event in follow(story.place, requested + i * MINUTE)]
    assert told == ["rollback_ineffective"]


def test_rows_before_the_request_prove_nothing(ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver) -> None:
    """Version 2 served in the last ten minutes but not in the last five."""
    story = Story(ledger, tmp_path, ops, ci)
    story.place.traffic.serve(window(1).end - 2 * MINUTE, v1=BOTH["1"])
    requested = story.accuse()
    assert [follow(story.place, requested + i * MINUTE) for i in (1, 4)] == [[], []]
    assert follow(story.place, requested + 5 * MINUTE)[0] == "rollback_effective"


def test_a_dry_run_asks_and_expects_nothing(ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver) -> None:
    story = Story(ledger, tmp_path, ops, ci, Rollback("rollback", "ci"))
    requested = story.accuse()
    assert story.command["dry_run"] is True
    assert story.place.lines("rollback_requested")[0]["dry_run"] is True
    assert [follow(story.place, requested + i * MINUTE) for i in range(1, 60)] == [[]] * 59
    assert [a.state for a in ledger.actions("production", "churn")] == ["dry_run"]


def test_a_refused_rollback_is_told_with_its_reason(
    ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver
) -> None:
    story = Story(ledger, tmp_path, ops, ci)
    place = story.place
    place.traffic.serve(BEGIN, v1=BOTH["1"], v2=BOTH["2"], v3={"d": 60})
    story.accuse()
    for i in (1, 2):
        take(place, i, [accuracy_drop(i, 0.5, version="3")])
    (line,) = place.lines("rollback_refused")
    assert (line["version"], line["baseline_version"]) == ("3", "1")
    assert line["reason"].endswith("is still in flight")
    assert len(ci.received) == 1


def test_evidence_against_no_version_asks_for_no_rollback(ledger: Ledger) -> None:
    place = office(ledger, Policy("inputs", "drift", hold=1, action="back"), actions={"back": BACK})
    assert tell(place, 0, [drift(0)]) == ["drift_found", "rollback_refused"]


def test_it_is_asked_for_once_while_the_incident_lasts(story: Story, ci: Receiver) -> None:
    story.accuse()
    for i in range(2, 8):
        tell(story.place, i, [accuracy_drop(i, 0.5)])
        follow(story.place, window(i).end)
        story.place.desk.deliver(window(i).end + 5 * MINUTE)
    assert story.place.events().count("rollback_requested") == 1
    assert len(ci.received) == 1


def test_a_request_that_nobody_took_expires_and_is_no_longer_sent(
    ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver
) -> None:
    ci.script[0].status = 503
    story = Story(ledger, tmp_path, ops, ci)
    requested = story.accuse()
    for minutes in range(1, 40):
        story.place.desk.deliver(requested + minutes * MINUTE)
    assert story.place.events()[-1] == "rollback_expired"
    sent = len(ci.received)
    story.place.desk.deliver(requested + 300 * MINUTE)
    assert len(ci.received) == sent


def test_a_request_is_withdrawn_when_version_1_is_back_before_anyone_took_it(
    ledger: Ledger, tmp_path: Path, ops: Receiver, ci: Receiver
) -> None:
    ci.script[0].status = 503
    story = Story(ledger, tmp_path, ops, ci)
    requested = story.accuse()
    story.pipeline_puts_version_1_back()
    assert follow(story.place, requested + 6 * MINUTE) == ["rollback_effective"]
    sent = len(ci.received)
    story.place.desk.deliver(requested + 10 * MINUTE)
    assert len(ci.received) == sent


def test_windows_taken_by_several_threads_ask_for_one_rollback(story: Story, ledger: Ledger) -> None:
    tell(story.place, 0, [accuracy_drop(0, 0.5)])
    in_threads(4, lambda _: take(story.place, 1, [accuracy_drop(1, 0.5)]))
    assert len(ledger.actions("production", "churn")) == 1
    assert story.place.events() == ["accuracy_drop_found", "alert_firing", "rollback_requested"]


# Reports on actions


def report(story: Story, token: str | None = None, **event: Any) -> None:
    command = story.command
    story.place.desk.callback(command["id"], token or command["callback"]["token"], event, story.now + MINUTE)


def test_reports_are_written_down_once_and_prove_nothing(story: Story) -> None:
    requested = story.accuse()
    for _ in range(2):
        report(story, state="started", run_url="https://ci.example/7")
        report(story, state="succeeded", run_url="https://ci.example/7", deployed_version="1", message="done")
    report(story, state="started", run_url="https://ci.example/8")
    told = [e for e in story.place.events() if e.startswith("rollback_")]
    assert told == [
        *("rollback_requested", "rollback_dispatched"),
        *("rollback_started", "rollback_succeeded", "rollback_started"),
    ]
    (line,) = story.place.lines("rollback_succeeded")
    assert line.items() >= {"action_id": story.command["id"], "deployed_version": "1", "message": "done"}.items()
    assert follow(story.place, requested + 14 * MINUTE) == []
    assert follow(story.place, requested + 15 * MINUTE) == ["rollback_ineffective"]


def test_a_report_of_failure_does_not_end_the_search_for_the_effect(story: Story) -> None:
    requested = story.accuse()
    report(story, state="failed")
    story.pipeline_puts_version_1_back()
    assert follow(story.place, requested + 8 * MINUTE) == ["rollback_effective"]


def test_a_wrong_token_is_refused_and_nothing_written(story: Story) -> None:
    story.accuse()
    before = story.place.events()
    for token in ("wrong", "", "\u00e9", story.command["callback"]["token"][:-1]):
        with pytest.raises(WrongTokenError):
            story.place.desk.callback(story.command["id"], token, {"state": "started"}, story.now)
    assert story.place.events() == before


def test_an_unknown_action_is_refused(story: Story) -> None:
    with pytest.raises(UnknownActionError, match="act_none"):
        story.place.desk.callback("act_none", "token", {"state": "started"}, BEGIN)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"state": "effective"},
        {"state": 1},
        {"state": ["started"]},
        {"state": "started", "message": 7},
        {"state": "started", "message": "x" * 1001},
        {"state": "started", "run_url": None},
    ],
)
def test_a_report_that_makes_no_sense_is_refused_with_what_would_be_right(story: Story, event: dict[str, Any]) -> None:
    story.accuse()
    with pytest.raises(BadCallbackError, match=r"use started, succeeded, failed, refused|must be a text"):
        report(story, **event)


def test_a_report_that_is_no_object_is_refused(story: Story) -> None:
    story.accuse()
    body: Any = ["started"]
    with pytest.raises(BadCallbackError, match="not an object"):
        story.place.desk.callback(story.command["id"], story.command["callback"]["token"], body, story.now)


def test_the_token_is_kept_only_as_a_hash(story: Story, ledger: Ledger) -> None:
    story.accuse()
    token = story.command["callback"]["token"]
    assert token not in repr(ledger.actions("production", "churn"))
    assert token not in repr(ledger.timeline())
