"""The life of an incident, over all sequences of verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from alerting import BEGIN, HOUR, finding, window
from hypothesis import given
from hypothesis import strategies as st

from alerts.incidents import Change, Incident, advance, incident_key, retire
from alerts.messages import alert_body
from alerts.places import Cause
from alerts.policy import Policy, State, Verdict, judge

POLICY = Policy("inputs", "drift", hold=2, clear=2)
STATES: tuple[State, ...] = ("ok", "drifted", "unsure", "error")
some_states = st.lists(st.sampled_from(STATES), max_size=30)
counts = st.integers(1, 4)


def verdict(number: int, state: State) -> Verdict:
    features = (f"feature{number}",) if state == "drifted" else ()
    return Verdict("inputs", state, "2", "", "", window(number), features=features)


def run(states: list[State], policy: Policy = POLICY) -> tuple[Incident, list[tuple[int, Change]]]:
    incident = Incident.of(policy, verdict(0, "ok"))
    changes: list[tuple[int, Change]] = []
    for i, state in enumerate(states):
        incident, change = advance(incident, verdict(i, state), policy, window(i).end)
        if change is not None:
            changes.append((i, change))
    return incident, changes


@given(some_states, counts, counts)
def test_unsure_and_error_change_nothing(states: list[State], hold: int, clear: int) -> None:
    policy = replace(POLICY, hold=hold, clear=clear)
    blanked: list[State] = []
    incident = Incident.of(policy, verdict(0, "ok"))
    for i, state in enumerate(states):
        before = incident
        incident, change = advance(incident, verdict(i, state), policy, window(i).end)
        if state in ("unsure", "error"):
            assert (incident, change) == (before, None)
        else:
            blanked.append(state)
    assert [change for _, change in run(states, policy)[1]] == [change for _, change in run(blanked, policy)[1]]


@given(some_states, counts, counts)
def test_an_alarm_never_repeats_without_clearing(states: list[State], hold: int, clear: int) -> None:
    changes = [change for _, change in run(states, replace(POLICY, hold=hold, clear=clear))[1]]
    assert changes == [("found", "cleared")[i % 2] for i in range(len(changes))]


@given(some_states, counts, counts)
def test_every_change_has_its_windows_in_a_row(states: list[State], hold: int, clear: int) -> None:
    _, changes = run(states, replace(POLICY, hold=hold, clear=clear))
    for i, change in changes:
        known = [s for s in states[: i + 1] if s in ("ok", "drifted")]
        expected, needed = ("drifted", hold) if change == "found" else ("ok", clear)
        assert known[-needed:] == [expected] * needed


@given(some_states, counts)
def test_what_is_firing_has_been_found_and_not_cleared(states: list[State], hold: int) -> None:
    incident, changes = run(states, replace(POLICY, hold=hold))
    assert (incident.state == "firing") == (len(changes) % 2 == 1)


@given(some_states, st.data())
def test_judging_a_window_again_changes_nothing(states: list[State], data: st.DataObject) -> None:
    incident, _ = run(states)
    known = [i for i, s in enumerate(states) if s in ("ok", "drifted")]
    if known:
        again = data.draw(st.integers(0, known[-1]))
        state = data.draw(st.sampled_from(STATES))
        assert advance(incident, verdict(again, state), POLICY, window(99).end) == (incident, None)


@given(st.integers(1, 20))
def test_flapping_never_fires(times: int) -> None:
    assert run(["drifted", "ok"] * times)[1] == []


def test_the_states_on_the_way() -> None:
    states: list[State] = ["ok", "drifted", "ok", "drifted", "drifted", "ok", "drifted", "ok", "ok", "drifted"]
    seen = [run(states[: i + 1])[0].state for i in range(len(states))]
    assert seen == [
        *("inactive", "pending", "inactive", "pending", "firing"),
        *("firing", "firing", "firing", "resolved", "pending"),
    ]


def test_it_tells_of_the_latest_drifted_window_and_since_when() -> None:
    incident, _ = run(["drifted", "drifted", "drifted", "ok"])
    assert incident.features == ("feature2",)
    assert incident.since == window(1).end
    assert incident.last_window_end == window(3).end


def test_severity_is_that_of_the_policy_when_it_was_found() -> None:
    pending, _ = run(["drifted"])
    firing, change = advance(pending, verdict(1, "drifted"), replace(POLICY, severity="page"), window(1).end)
    assert (firing.severity, change) == ("page", "found")
    kept, _ = advance(firing, verdict(2, "drifted"), POLICY, window(2).end)
    assert kept.severity == "page"


@pytest.mark.parametrize(
    ("states", "state", "change"),
    [
        (["drifted", "drifted"], "resolved", "cleared"),
        (["drifted"], "inactive", None),
        (["ok"], "inactive", None),
        (["drifted", "drifted", "ok", "ok"], "resolved", None),
    ],
)
def test_retiring(states: list[State], state: str, change: str | None) -> None:
    now = window(9).end
    incident, told = retire(run(states)[0], "version 2 no longer serves", now)
    assert (incident.state, told) == (state, change)
    if change:
        assert (incident.reason, incident.since) == ("version 2 no longer serves", now)


@pytest.mark.parametrize("states", [["drifted", "drifted"], ["drifted"]])
def test_a_retired_incident_starts_from_nothing(states: list[State]) -> None:
    retired, _ = retire(run(states)[0], "gone", window(1).end + timedelta(minutes=30))
    again, change = advance(retired, verdict(2, "drifted"), POLICY, window(2).end)
    assert (again.state, change, again.reason) == ("pending", None, "")


def test_every_part_of_the_subject_makes_another_incident() -> None:
    base = verdict(0, "ok")
    others = [
        replace(base, policy="other"),
        replace(base, version="3"),
        replace(base, version="", server="2"),
        replace(base, version="", segment="2"),
        replace(base, window=replace(base.window, model="fraud")),
        replace(base, window=replace(base.window, environment="staging")),
    ]
    assert len({incident_key(v) for v in [base, *others]}) == 7
    assert incident_key(base) == incident_key(verdict(5, "drifted"))


def test_what_was_seen_is_told_while_it_is_so_and_not_after() -> None:
    policy = Policy("quiet", "silence", hold=1, clear=1)
    dead = finding("silence", 0, severity=4.0, server="b", message="silent for 60 minutes")
    found = judge(policy, [dead], alpha=0.0)[0]
    incident, change = advance(Incident.of(policy, found), found, policy, BEGIN)
    assert (incident.state, change, incident.reason) == ("firing", "found", "silent for 60 minutes")
    assert b"silence of churn, server b: silent for 60 minutes" in alert_body(incident, "found", BEGIN)
    well = judge(policy, [finding("silence", 1, severity=0.1, server="b")], alpha=0.0)[0]
    incident, change = advance(incident, well, policy, BEGIN + HOUR)
    assert (incident.state, change, incident.reason) == ("resolved", "cleared", "")


def test_each_cause_says_since_when_it_has_been_there_in_drifted_windows_in_a_row() -> None:
    def causes(number: int, *features: str) -> Verdict:
        named = tuple(Cause(f, "missing", "server s3", 2.0, window(number).start) for f in features)
        state: State = "drifted" if features else "ok"
        return Verdict("inputs", state, "2", "", "", window(number), features=features, causes=named)

    incident = Incident.of(POLICY, verdict(0, "ok"))
    windows = [("a",), ("a", "b"), (), ("a",), ("b", "a")]
    seen = []
    for i, features in enumerate(windows):
        incident, _ = advance(incident, causes(i, *features), POLICY, window(i).end)
        seen.append({c.feature: c.since for c in incident.causes})
    starts = [window(i).start for i in range(len(windows))]
    assert seen[1] == {"a": starts[0], "b": starts[1]}
    assert seen[2] == seen[1], "what it was is kept while nothing is drifted"
    assert seen[4] == {"a": starts[3], "b": starts[4]}


def sliding(states: list[State], length: int, every: int) -> list[tuple[int, Change]]:
    """The changes that windows of some hours bring, one every so many hours; and when, in hours."""
    incident, changes = Incident.of(POLICY, verdict(0, "ok")), []
    for i, state in enumerate(states):
        start = BEGIN + i * every * HOUR
        of = replace(verdict(0, state), window=replace(window(0), start=start, end=start + length * HOUR))
        incident, change = advance(incident, of, POLICY, of.window.end)
        if change is not None:
            changes.append((i * every + length, change))
    return changes


def test_windows_that_overlap_are_no_second_proof() -> None:
    drifted: list[State] = ["drifted"] * 4
    assert sliding([*drifted[:3], "ok"], 6, 2) == []  # three windows that share two hours
    assert sliding(drifted, 6, 2) == [(6 + 6, "found")]
    assert sliding(drifted[:2], 6, 6) == [(6 + 6, "found")]


def test_all_windows_in_between_must_agree() -> None:
    assert sliding(["drifted", "drifted", "ok", "drifted", "drifted", "drifted"], 6, 2) == []


def test_it_clears_when_as_much_time_was_well() -> None:
    found: list[State] = ["drifted"] * 4
    well: list[State] = ["ok"] * 4
    assert sliding([*found, *well[:3]], 6, 2) == [(12, "found")]
    assert sliding([*found, *well], 6, 2) == [(12, "found"), (20, "cleared")]
