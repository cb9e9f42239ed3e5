"""The life of an incident: a pure state machine over the verdicts of one policy on one subject.

inactive → pending → firing → resolved (→ pending …). ``hold`` drifted windows in a row fire it, ``clear`` ok windows
in a row resolve it; a window that overlaps the last one counted has no news of its own and is not counted. Verdicts
that are unsure or an error change nothing at all: no data is neither better nor worse.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from alerts.places import Cause
from alerts.policy import OBSERVED, Policy, Verdict
from detectors.finding import Window

IncidentState = Literal["inactive", "pending", "firing", "resolved"]
Change = Literal["found", "cleared"]
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Incident:
    """One policy's memory of one subject.

    since
        When it entered its state.
    features, value, baseline_version, evidence
        Those of the latest drifted window.
    causes
        What is known of each feature, and since which of the drifted windows in a row it is among them.
    reason
        What was seen, where a policy watches facts; why it was retired. Empty when it cleared by its windows.
    last_window_end
        Windows that end by then have been taken into account.
    counted_until
        The end of the last window that was counted among those in a row.
    """

    key: str
    policy: str
    watch: str
    severity: str
    environment: str
    model: str
    version: str
    server: str
    segment: str
    state: IncidentState = "inactive"
    since: datetime = NEVER
    drifted_in_a_row: int = 0
    ok_in_a_row: int = 0
    features: tuple[str, ...] = ()
    value: float | None = None
    baseline_version: str = ""
    evidence: tuple[str, ...] = ()
    reason: str = ""
    last_window_end: datetime = NEVER
    counted_until: datetime = NEVER
    causes: tuple[Cause, ...] = ()

    @classmethod
    def of(cls, policy: Policy, verdict: Verdict) -> Self:
        """The incident that a verdict belongs to, before anything is known of it."""
        window = verdict.window
        return cls(
            incident_key(verdict),
            policy.name,
            policy.watch,
            policy.severity,
            window.environment,
            window.model,
            verdict.version,
            verdict.server,
            verdict.segment,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "id": self.key,
            "policy": self.policy,
            "watch": self.watch,
            "severity": self.severity,
            "environment": self.environment,
            "model": self.model,
            "version": self.version,
            "server": self.server,
            "segment": self.segment,
            "state": self.state,
            "since": self.since.isoformat(),
            "features": list(self.features),
            "value": self.value,
            "baseline_version": self.baseline_version,
            "evidence": list(self.evidence),
            "reason": self.reason,
            "causes": [c.to_dict() for c in self.causes],
        }


def incident_key(verdict: Verdict) -> str:
    """The same for all verdicts of one policy on one subject."""
    window = verdict.window
    parts = (verdict.policy, window.environment, window.model, verdict.version, verdict.server, verdict.segment)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def advance(incident: Incident, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Incident, Change | None]:
    """The incident after a verdict, and what there is to tell.

    A window that ends no later than the last one taken into account is ignored, so judging a window twice is harmless.
    """
    if verdict.state in ("unsure", "error") or verdict.window.end <= incident.last_window_end:
        return incident, None
    if verdict.state == "drifted":
        return _drifted(incident, verdict, policy, now)
    return _ok(incident, verdict, policy, now)


def retire(incident: Incident, reason: str, now: datetime) -> tuple[Incident, Change | None]:
    """The incident when what it accuses is no longer there."""
    if incident.state == "firing":
        return replace(_moved(incident, "resolved", now), drifted_in_a_row=0, reason=reason), "cleared"
    if incident.state == "pending":
        return replace(_moved(incident, "inactive", now), drifted_in_a_row=0, reason=reason), None
    return incident, None


def _drifted(incident: Incident, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Incident, Change | None]:
    since = {c.feature: c.since for c in incident.causes if incident.drifted_in_a_row}
    count, until = _counted(incident, incident.drifted_in_a_row, verdict.window)
    seen = replace(
        incident,
        drifted_in_a_row=count,
        ok_in_a_row=0,
        features=verdict.features,
        value=verdict.value,
        baseline_version=verdict.baseline_version,
        evidence=verdict.evidence,
        reason=verdict.reason if policy.watch in OBSERVED else "",
        last_window_end=verdict.window.end,
        counted_until=until,
        causes=tuple(replace(c, since=since.get(c.feature, c.since)) for c in verdict.causes),
    )
    if incident.state == "firing":
        return seen, None
    if seen.drifted_in_a_row >= policy.hold:
        return replace(_moved(seen, "firing", now), severity=policy.severity), "found"
    return _moved(seen, "pending", now), None


def _ok(incident: Incident, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Incident, Change | None]:
    count, until = _counted(incident, incident.ok_in_a_row, verdict.window)
    seen = replace(
        incident,
        drifted_in_a_row=0,
        ok_in_a_row=count,
        reason="",
        last_window_end=verdict.window.end,
        counted_until=until,
    )
    if incident.state == "firing" and seen.ok_in_a_row >= policy.clear:
        return _moved(seen, "resolved", now), "cleared"
    if incident.state == "pending":
        return _moved(seen, "inactive", now), None
    return seen, None


def _counted(incident: Incident, in_a_row: int, window: Window) -> tuple[int, datetime]:
    """How many windows are in a row with this one, and until when those that were counted go."""
    overlaps = in_a_row > 0 and window.start < incident.counted_until
    return (in_a_row, incident.counted_until) if overlaps else (in_a_row + 1, window.end)


def _moved(incident: Incident, state: IncidentState, now: datetime) -> Incident:
    return incident if incident.state == state else replace(incident, state=state, since=now)
