"""Plays a scenario on a real service, in a folder of its own, and holds what was said against what was expected."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from monitor.config import Config, ConfigError, Privacy, StoreSpec
from monitor.scenarios.file import Expectation, Scenario
from monitor.scenarios.traffic import Event, events_between, reference_table
from monitor.service import Service
from monitor.windows import LATE_ALLOWANCE

LONGEST_STEP = timedelta(hours=1)
ALL_ENTRIES = 1_000_000
PLACES = ("version", "server", "segment")


@dataclass(frozen=True)
class Fired:
    """One time that a policy said something. Times count from the start."""

    policy: str
    at: timedelta
    features: tuple[str, ...]
    version: str
    server: str
    segment: str
    reason: str

    def __str__(self) -> str:
        place = " ".join(f"{name} {getattr(self, name)}" for name in PLACES if getattr(self, name))
        words = ", ".join(w for w in (", ".join(self.features), place, self.reason) if w)
        return f"at {clock_time(self.at)}{f' ({words})' if words else ''}"


@dataclass(frozen=True)
class Outcome:
    """Whether an expectation came true, in words with what happened."""

    passed: bool
    words: str


@dataclass
class _Clock:
    at: datetime

    def now(self) -> datetime:
        return self.at


def play(scenario: Scenario) -> tuple[list[Outcome], list[Fired]]:
    """What became of each expectation, and what was said that none of them asked for.

    Raises ConfigError where the traffic cannot be taken in.
    """
    clock = _Clock(scenario.start)
    with ExitStack() as open_:
        folder = open_.enter_context(tempfile.TemporaryDirectory(prefix="telltale-"))
        service = open_.enter_context(Service(_config(scenario, Path(folder)), clock))
        service.register_reference(scenario.name, reference_table(scenario), "reference")
        _let_it_happen(scenario, service, clock)
        fired = list(_fired(scenario, service))
        replayed = service.replay(scenario.name, scenario.start, scenario.start + scenario.lasts)
    counts = {policy["policy"]: policy for policy in replayed["policies"]}
    outcomes = [_outcome(expectation, fired, counts[expectation.policy]) for expectation in scenario.expect]
    return outcomes, [f for f in fired if not any(_is_meant(e, f) for e in scenario.expect)]


def clock_time(at: timedelta) -> str:
    """A time from the start.

    >>> clock_time(timedelta(hours=30, minutes=2))
    '30h02'
    """
    minutes = at // timedelta(minutes=1)
    return f"{minutes // 60}h{minutes % 60:02}"


def _config(scenario: Scenario, folder: Path) -> Config:
    """What the policies would tell and ask for stays in the folder: it has no notifiers and no actions."""
    kept = {"reference": None, "privacy": Privacy(drop=scenario.spec.privacy.drop)}
    models = {scenario.name: scenario.spec.model_copy(update=kept)}
    policies = tuple(replace(p, notify=(), action=None) for p in scenario.policies if p.watches(scenario.name))
    return Config(store=StoreSpec(path=folder), models=models, policies=policies)


def _let_it_happen(scenario: Scenario, service: Service, clock: _Clock) -> None:
    """Take in what comes, step by step, and judge what has become due."""
    step = min(*scenario.spec.windows, LONGEST_STEP)
    coming: list[tuple[timedelta, int, Event]] = []
    number, since = 0, timedelta(0)
    while since < scenario.lasts:
        until = min(since + step, scenario.lasts)
        for at, event in events_between(scenario, since, until):
            heapq.heappush(coming, (at, number, event))
            number += 1
        if since == timedelta(0) and coming:  # the model is known from the first event on, not from the first step on
            clock.at += coming[0][0]
            _take(service, [heapq.heappop(coming)[2]])
        clock.at = scenario.start + until
        _take(service, list(_by(until, coming)))
        clock.at += LATE_ALLOWANCE
        service.judge_due(clock.at)
        service.follow(clock.at)
        since = until


def _by(until: timedelta, coming: list[tuple[timedelta, int, Event]]) -> Iterator[Event]:
    while coming and coming[0][0] <= until:
        yield heapq.heappop(coming)[2]


def _take(service: Service, events: Sequence[Event]) -> None:
    if events:
        refused = service.take(b"\n".join(map(orjson.dumps, events)), "http").rejects
        if refused:
            raise ConfigError(f"traffic: its events are not taken in: {refused[0].detail}")


def _fired(scenario: Scenario, service: Service) -> Iterator[Fired]:
    for entry in service.ledger.timeline(limit=ALL_ENTRIES):
        if entry.event.endswith("_found"):
            told = {"features": (), **entry.data}
            places = {name: told[name] for name in PLACES}
            at = entry.at - LATE_ALLOWANCE - scenario.start
            yield Fired(told["policy"], at, tuple(told["features"]), **places, reason=told["reason"])


def _outcome(expectation: Expectation, fired: Sequence[Fired], count: Mapping[str, Any]) -> Outcome:
    of_policy = [f for f in fired if f.policy == expectation.policy]
    meant = [f for f in of_policy if _is_meant(expectation, f)]
    words = _words(expectation)
    judged = ", ".join(f"{count[state]} {state}" for state in ("drifted", "ok", "unsure", "error"))
    of_windows = f"of {count['windows']} windows {judged}"
    if expectation.never:
        at_place = [f for f in of_policy if _is_there(expectation, f)]
        if at_place:
            return Outcome(passed=False, words=f"{words}; it fired {'; '.join(map(str, at_place))}")
        if not (count["drifted"] or count["ok"]):
            return Outcome(passed=False, words=f"{words}; it could not have: {of_windows}")
        return Outcome(passed=True, words=words)
    if meant:
        return Outcome(passed=True, words=f"{words}: {meant[0]}")
    if of_policy:
        return Outcome(passed=False, words=f"{words}; instead it fired {'; '.join(map(str, of_policy))}")
    return Outcome(passed=False, words=f"{words}; it never fired: {of_windows}")


def _words(expectation: Expectation) -> str:
    features = f" with {', '.join(expectation.features)}" if expectation.features is not None else ""
    named = {name: getattr(expectation, name) for name in PLACES}
    told = {
        what: f" on {what} {name}" if name else f" on all {what}s" for what, name in named.items() if name is not None
    }
    places = "".join(told.values())
    if expectation.fires is None:
        return f"{expectation.policy} never fires{features}{places}"
    span = f"{clock_time(expectation.fires.since)} and {clock_time(expectation.fires.until)}"
    return f"{expectation.policy} fires between {span}{features}{places}"


def _is_meant(expectation: Expectation, fired: Fired) -> bool:
    span = expectation.fires
    in_time = span is None or span.since <= fired.at <= span.until
    return fired.policy == expectation.policy and in_time and _is_there(expectation, fired)


def _is_there(expectation: Expectation, fired: Fired) -> bool:
    """Whether the features and the place are those that are expected, where any are named."""
    if expectation.features is not None and sorted(expectation.features) != sorted(fired.features):
        return False
    return all(getattr(expectation, name) in (None, getattr(fired, name)) for name in PLACES)
