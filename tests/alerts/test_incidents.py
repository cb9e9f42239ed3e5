"""The life of an incident, over all sequences of verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from alerting import BEGIN, HOUR, finding, window
from hypothesis import given
from hypothesis import strategies as st

from alerts.incidents import Change, Incident, Seen, advance, incident_key, over, retire
from alerts.messages import alert_body
from alerts.places import Cause
from alerts.policy import Policy, State, Verdict, judge
from dashboards.claims import claim
from dashboards.claims import over as is_over

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


# Windows that are judged again, as rows came late

MINUTES = timedelta(minutes=5)
"""A window is judged so long after its end."""


class Life:
    """One incident, whose windows are judged when they end and again later. Tells of changes by the hour."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.incident = Incident.of(policy, verdict(0, "ok"))
        self.changes: list[tuple[int, Change]] = []

    def first(self, number: int, state: State) -> None:
        """A window is judged first, shortly after it."""
        self._take(number, state, window(number).end + MINUTES, None)

    def again(self, number: int, state: State, hours: float = 2) -> None:
        """A window is judged again, so many hours after the first time."""
        self._take(number, state, window(number).end + MINUTES + hours * HOUR, hours * HOUR)

    def _take(self, number: int, state: State, now: datetime, late: timedelta | None) -> None:
        self.incident, change = advance(self.incident, verdict(number, state), self.policy, now, late)
        if change is not None:
            self.changes.append(((now - BEGIN) // HOUR, change))


def live(life: Life, hours: Iterable[int], first: State, again: State | None, late: int = 2) -> None:
    """Each hour a window is judged, and one of some hours ago again."""
    for hour in hours:
        life.first(hour, first)
        if again and hour >= late:
            life.again(hour - late, again, late)


@pytest.mark.parametrize("late", [1, 2, 3, 5, 12, 30])
@pytest.mark.parametrize(("hold", "clear"), [(1, 1), (2, 2), (3, 1), (1, 4)])
@pytest.mark.parametrize("first", ["ok", "unsure"])
@pytest.mark.parametrize("comes_in_time", [False, True])
def test_what_is_always_late_is_found_once_and_cleared_once(
    late: int, hold: int, clear: int, first: State, comes_in_time: bool
) -> None:
    """A pod ships hours late, drifts for 60 hours, then is well, and late as before or in time."""
    life = Life(replace(POLICY, hold=hold, clear=clear))
    live(life, range(60), first, "drifted", late)
    assert life.changes == [(hold + late, "found")]
    assert life.incident.late
    live(life, range(60, 60 + late), first, "drifted", late)
    if comes_in_time:
        live(life, range(60 + late, 140), "ok", None)
    else:
        live(life, range(60 + late, 140), first, "ok", late)
    assert [change for _, change in life.changes] == ["found", "cleared"]
    cleared = life.changes[1][0]
    assert 60 + late < cleared <= 60 + clear + 2 * late + 2


def test_it_fires_on_windows_whose_successors_were_ok_on_a_part_of_their_rows() -> None:
    life = Life()
    live(life, range(6), "ok", None)
    life.again(1, "drifted", 6)
    assert life.incident.state == "pending"
    life.again(2, "drifted", 5)
    assert life.changes == [(8, "found")]
    assert life.incident.features == ("feature2",)


def test_two_that_are_not_side_by_side_are_no_second_proof() -> None:
    life = Life()
    live(life, range(6), "ok", None)
    life.again(1, "drifted", 6)
    life.again(3, "drifted", 4)
    life.first(6, "drifted")
    assert life.changes == []
    life.again(2, "drifted", 7)
    assert [change for _, change in life.changes] == ["found"]


def test_a_window_that_was_drifted_is_neither_told_again_nor_taken_back() -> None:
    life = Life()
    live(life, range(3), "drifted", None)
    before = life.incident
    for number in range(3):
        for state in ("drifted", "ok"):
            life.again(number, state)
            assert life.incident == before
    assert len(life.changes) == 1
    assert not life.incident.late


def test_windows_of_an_incident_that_is_over_prove_nothing_of_the_next() -> None:
    life = Life()
    for number, state in enumerate(["drifted", "drifted", "ok", "ok"]):
        life.first(number, state)  # type: ignore[arg-type]  # of a list of texts
    life.again(2, "drifted")
    assert life.incident.state == "pending"
    life.again(3, "drifted")
    assert [change for _, change in life.changes] == ["found", "cleared", "found"]


late_windows = st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True)


@given(late_windows, st.lists(st.sampled_from(STATES), min_size=10, max_size=10), counts, st.data())
def test_in_which_order_late_windows_are_judged_again_does_not_matter(
    numbers: list[int], states: list[State], hold: int, data: st.DataObject
) -> None:
    def judged(order: Sequence[int]) -> Incident:
        life = Life(replace(POLICY, hold=hold, clear=9))
        for number, state in enumerate(states):
            life.first(number, state)
        for number in order:
            life.again(number, "drifted", 40)
        return life.incident

    one, other = judged(numbers), judged(data.draw(st.permutations(numbers)))
    assert replace(one, since=BEGIN, late=False) == replace(other, since=BEGIN, late=False)


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(STATES), st.booleans()), max_size=40), counts, counts)
def test_the_same_late_state_twice_changes_nothing(
    judged: list[tuple[int, State, bool]], hold: int, clear: int
) -> None:
    once, twice = (Life(replace(POLICY, hold=hold, clear=clear)) for _ in range(2))
    for number, state, again in judged:
        for life in (once, twice, twice):
            life.again(number, state) if again else life.first(number, state)
    assert once.incident == twice.incident
    assert once.changes == twice.changes
    assert [change for _, change in once.changes] == [("found", "cleared")[i % 2] for i in range(len(once.changes))]


def test_overlapping_windows_that_are_judged_again_are_counted_side_by_side() -> None:
    def again(*starts: int) -> list[Change]:
        incident, changes = Incident.of(POLICY, verdict(0, "ok")), []
        for hour in starts:
            start = BEGIN + hour * HOUR
            of = replace(verdict(0, "drifted"), window=replace(window(0), start=start, end=start + 6 * HOUR))
            incident, change = advance(incident, of, POLICY, of.window.end + 30 * HOUR, 30 * HOUR)
            changes.extend([change] if change else [])
        return changes

    assert again(0, 2, 4) == []
    assert again(4, 0, 2, 6) == ["found"]


def test_a_window_from_before_all_that_are_remembered_is_settled() -> None:
    life = Life()
    life.first(0, "drifted")
    live(life, range(1, 60), "ok", None)
    before = life.incident
    life.again(3, "drifted", 60)
    assert life.incident == before


def test_what_was_found_in_late_rows_says_so() -> None:
    life = Life(replace(POLICY, hold=1))
    life.first(0, "ok")
    life.again(0, "drifted")
    assert b"drift of churn, version 2, found in rows that came late: feature0" in alert_body(
        life.incident, "found", BEGIN
    )
    entry = life.incident.to_dict()
    assert claim(entry, "drift").endswith("changed against what is usual, found in rows that came late")
    found_in_time, _ = run(["drifted", "drifted"])
    assert b"late" not in alert_body(found_in_time, "found", BEGIN)
    assert "late" not in claim(found_in_time.to_dict(), "drift")


# What is told when it is over


def cleared(features: Sequence[str], elsewhere: Sequence[tuple[str, str]], policy: Policy = POLICY) -> Incident:
    """An incident about features, after two ok windows; the features of the last that are told elsewhere."""
    incident = Incident.of(policy, verdict(0, "ok"))
    for number in (0, 1):
        drifted = replace(verdict(number, "drifted"), features=tuple(features))
        incident, _ = advance(incident, drifted, policy, window(number).end)
    for number in (2, 3):
        incident, change = advance(
            incident, replace(verdict(number, "ok"), elsewhere=tuple(elsewhere)), policy, window(number).end
        )
    assert change == "cleared"
    return incident


AT_POD = "explained by server pod-3"


@pytest.mark.parametrize(
    ("features", "elsewhere", "reason"),
    [
        (["age"], [("age", AT_POD)], f"age {AT_POD}"),
        (["age", "income"], [("age", AT_POD)], f"age {AT_POD}; income as usual again"),
        (["age", "income"], [("age", AT_POD), ("income", AT_POD)], f"age, income {AT_POD}"),
        (["age"], [("income", AT_POD)], ""),
        (["age"], [], ""),
    ],
)
def test_a_change_that_is_told_of_a_smaller_place_by_now_is_not_as_usual_again(
    features: list[str], elsewhere: list[tuple[str, str]], reason: str
) -> None:
    incident = cleared(features, elsewhere)
    assert incident.reason == reason
    assert (f"is over: {reason}" if reason else "is over").encode() + b'"' in alert_body(incident, "cleared", BEGIN)
    told = is_over(incident.to_dict(), "drift")
    assert told.endswith(f"is over: {reason}" if reason else "as usual again")


def longer(features: Sequence[str], hours: int = 24, **changes: str) -> Incident:
    """An incident that fires in longer windows."""
    seen = Seen(BEGIN, BEGIN + hours * HOUR, BEGIN, "drifted")
    firing = replace(Incident.of(POLICY, verdict(0, "ok")), state="firing", features=tuple(features), windows=(seen,))
    return replace(firing, key="another", policy="daily", **changes)  # type: ignore[arg-type]  # texts


def test_what_goes_on_in_longer_windows_is_not_as_usual_again() -> None:
    ended = cleared(["age", "income"], [])
    goes_on = "no longer in windows of 1 h, goes on in those of"
    assert over(ended, [longer(["age", "plan"])]).reason == f"age {goes_on} 24 h; income as usual again"
    both = [longer(["age"]), longer(["income"], 6)]
    assert over(ended, both).reason == f"age, income {goes_on} 6 h and 24 h"
    for other in (longer(["plan"]), longer(["age"], 1), longer(["age"], watch="joint"), longer(["age"], version="9")):
        assert over(ended, [other]) == ended
    assert over(ended, [replace(longer(["age"]), state="resolved")]) == ended
    assert over(replace(ended, features=()), [longer([])]).reason == f"{goes_on} 24 h"
