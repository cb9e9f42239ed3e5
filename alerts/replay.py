"""What policies would have decided on windows of the past. Pure: nothing is kept, sent or asked for.

It goes the way of the desk: judge → set aside what accuses the gone → advance the incidents → retire those whose
subject has gone. Only what follows from an action is not there, as none is asked for: in life, an incident whose
rollback is in flight stays until that has had its effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from alerts.incidents import Change, Incident, advance, incident_key, over, retire
from alerts.policy import ModelRules, Policy, State, Verdict, judge_window
from alerts.serving import Served, Traffic, has_gone, lost_subject, served_lately
from detectors.finding import Finding, Window

TOLD = ("policy", "watch", "severity", "version", "server", "segment", "features", "value", "reason", "since")
"""Of an incident."""
WORST_FIRST: tuple[State, ...] = ("drifted", "error", "ok", "unsure")
"""A window is what the first of these is that any place in it is: it was looked at where any place could be judged."""


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """The findings of one window, and when they were decided on."""

    window: Window
    at: datetime
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Firing:
    """One incident from when it was found.

    incident
        As it was then; ``since`` is the time.
    until
        None: still open at the end.
    ended
        Why, where it was not for that all is as usual again; empty also where it is open.
    action
        What would have been asked for, if no guard had objected.
    """

    incident: Incident
    until: datetime | None = None
    ended: str = ""
    action: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        incident = self.incident.to_dict()
        until = self.until.isoformat() if self.until else None
        return {**{name: incident[name] for name in TOLD}, "until": until, "ended": self.ended, "action": self.action}


@dataclass(slots=True)
class Replayed:
    """What became of one policy: how many windows were what, and its incidents as they were found."""

    policy: Policy
    windows: dict[State, int] = field(default_factory=lambda: dict.fromkeys(WORST_FIRST, 0))
    firings: list[Firing] = field(default_factory=list)


def replay(
    policies: Sequence[Policy], rules: ModelRules, windows: Iterable[JudgedWindow], traffic: Traffic
) -> list[Replayed]:
    """What became of every policy that watches the model, in their order.

    windows
        In the order in which they were decided on. Nothing is known of what was before the first.
    traffic
        Tells which versions and servers have gone, whenever a window was decided on.
    """
    past = _Past(policies, rules, traffic)
    for judged in windows:
        past.take(judged)
        past.follow(judged.at)
    return list(past.replayed.values())


class _Past:
    def __init__(self, policies: Sequence[Policy], rules: ModelRules, traffic: Traffic) -> None:
        self.replayed = {p.name: Replayed(p) for p in policies if p.watches(rules.model)}
        self._policies = policies
        self._rules = rules
        self._traffic = traffic
        self._incidents: dict[str, Incident] = {}
        self._open: dict[str, int] = {}
        """Where among the policy's firings the one of an incident is that still goes on."""

    def take(self, judged: JudgedWindow) -> None:
        length = judged.window.end - judged.window.start
        states: dict[str, set[State]] = {}
        lately: Served | None = None
        for policy, verdict in judge_window(self._policies, self._rules, judged.findings, length):
            states.setdefault(policy.name, set()).add(verdict.state)
            if verdict.state == "drifted":
                lately = self._served(judged.at) if lately is None else lately
                if has_gone(lately, policy.watch, verdict.version, verdict.server):
                    continue
            self._advance(judged.at, policy, verdict)
        for name, seen in states.items():
            self.replayed[name].windows[next(s for s in WORST_FIRST if s in seen)] += 1

    def follow(self, now: datetime) -> None:
        unsettled = [i for i in self._incidents.values() if i.state in ("pending", "firing")]
        if not unsettled:
            return
        lately = self._served(now)
        for incident in unsettled:
            if reason := lost_subject(lately, incident.watch, incident.version, incident.server):
                self._keep(now, *retire(incident, reason, now))

    def _advance(self, now: datetime, policy: Policy, verdict: Verdict) -> None:
        known = self._incidents.get(incident_key(verdict))
        if known is not None or verdict.state == "drifted":
            incident, change = advance(known or Incident.of(policy, verdict), verdict, policy, now)
            self._keep(now, over(incident, self._incidents.values()) if change == "cleared" else incident, change)

    def _keep(self, now: datetime, incident: Incident, change: Change | None) -> None:
        self._incidents[incident.key] = incident
        replayed = self.replayed[incident.policy]
        if change == "found":
            self._open[incident.key] = len(replayed.firings)
            replayed.firings.append(Firing(incident, action=replayed.policy.action))
        elif change == "cleared":
            at = self._open.pop(incident.key)
            began = replayed.firings[at]
            replayed.firings[at] = Firing(began.incident, now, incident.reason, began.action)

    def _served(self, now: datetime) -> Served:
        return served_lately(self._traffic, self._rules.environment, self._rules.model, now)
