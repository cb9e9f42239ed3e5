"""The life of an incident: a pure state machine over the verdicts of one policy on one subject.

inactive → pending → firing → resolved (→ pending …). ``hold`` drifted windows in a row fire it, ``clear`` ok windows
in a row resolve it; a window that overlaps the last one counted has no news of its own and is not counted. Verdicts
that are unsure or an error change nothing at all: no data is neither better nor worse.

It is a fold over the last windows, so one that is judged again, as rows came late, takes its place among them. It may
turn from ok to drifted, never back. Where that happened, later windows that are ok count only once they are so old
that rows as late would be there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Literal, Self

from alerts.places import Cause
from alerts.policy import OBSERVED, Policy, Verdict

IncidentState = Literal["inactive", "pending", "firing", "resolved"]
Change = Literal["found", "cleared"]
WindowState = Literal["ok", "drifted", "told"]
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SUBJECT = ("watch", "environment", "model", "version", "server", "segment")
LEAST_KEPT = 48
"""So many windows an incident remembers, and more where hold and clear need them; what was before is settled."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a window was seen to be.

    judged
        When it was judged first.
    state
        ``told``: it was drifted, and the incident that it belonged to is over.
    late
        How long after that it was found drifted, if it was so only when it was judged again.
    """

    start: datetime
    end: datetime
    judged: datetime
    state: WindowState
    late: timedelta | None = None

    def to_list(self) -> list[Any]:
        """As JSON can hold it."""
        late = None if self.late is None else self.late.total_seconds()
        return [*(at.isoformat() for at in (self.start, self.end, self.judged)), self.state, late]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Self:
        """Back from JSON."""
        start, end, judged = map(datetime.fromisoformat, values[:3])
        state, late = values[3:]
        return cls(start, end, judged, state, None if late is None else timedelta(seconds=late))


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
        What was seen, where a policy watches facts; why it was retired; what became of its features where it is over
        and not all of them are as usual again.
    windows
        Those that were taken into account lately, oldest first.
    late
        It was found in rows that came late.
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
    features: tuple[str, ...] = ()
    value: float | None = None
    baseline_version: str = ""
    evidence: tuple[str, ...] = ()
    reason: str = ""
    windows: tuple[Seen, ...] = ()
    late: bool = False
    causes: tuple[Cause, ...] = ()

    @property
    def last_window_end(self) -> datetime:
        """Windows that are judged for the first time and end by then have been taken into account."""
        return self.windows[-1].end if self.windows else NEVER

    @property
    def length(self) -> timedelta:
        """Of its windows."""
        return self.windows[-1].end - self.windows[-1].start if self.windows else timedelta(0)

    @property
    def patience(self) -> timedelta:
        """How late rows came that made a window of this incident drifted, at most."""
        return max((w.late for w in self.windows if w.state == "drifted" and w.late), default=timedelta(0))

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
            "late": self.late,
        }


def incident_key(verdict: Verdict) -> str:
    """The same for all verdicts of one policy on one subject."""
    window = verdict.window
    parts = (verdict.policy, window.environment, window.model, verdict.version, verdict.server, verdict.segment)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


def advance(
    incident: Incident, verdict: Verdict, policy: Policy, now: datetime, late: timedelta | None = None
) -> tuple[Incident, Change | None]:
    """The incident after a verdict, and what there is to tell.

    A window that ends no later than the last one taken into account is ignored, so judging a window twice is harmless.

    late
        Of a window that is judged again: how long after the first time.
    """
    if verdict.state in ("unsure", "error"):
        return incident, None
    window = verdict.window
    state: WindowState = "drifted" if verdict.state == "drifted" else "ok"
    seen = Seen(window.start, window.end, now - (late or timedelta(0)), state, late)
    windows = _with(incident.windows, seen, max(LEAST_KEPT, 4 * (policy.hold + policy.clear)))
    if windows == incident.windows:
        return incident, None
    if verdict.state == "drifted":
        return _drifted(replace(incident, windows=windows), seen, verdict, policy, now)
    return _ok(replace(incident, windows=windows), verdict, policy, now)


def over(incident: Incident, others: Iterable[Incident]) -> Incident:
    """A cleared incident, and what of it goes on in longer windows, by the other incidents of its model."""
    longer = [o for o in others if o.state == "firing" and o.length > incident.length and _is_about(o, incident)]
    if incident.reason or not longer:
        return incident
    lengths = " and ".join(_in_words(length) for length in sorted({o.length for o in longer}))
    why = f"no longer in windows of {_in_words(incident.length)}, goes on in those of {lengths}"
    features = {feature for o in longer for feature in o.features}
    return replace(incident, reason=_what_became(incident.features, dict.fromkeys(features, why)) or why)


def retire(incident: Incident, reason: str, now: datetime) -> tuple[Incident, Change | None]:
    """The incident when what it accuses is no longer there."""
    if incident.state == "firing":
        return replace(_ended(incident, "resolved", now), reason=reason), "cleared"
    if incident.state == "pending":
        return replace(_ended(incident, "inactive", now), reason=reason), None
    return incident, None


def _with(windows: Sequence[Seen], seen: Seen, most: int) -> tuple[Seen, ...]:
    """The windows with another one: the same ones where it is no news."""
    known = [w for w in windows if (w.start, w.end) == (seen.start, seen.end)]
    if seen.late is None:
        is_news = not windows or seen.end > windows[-1].end
    else:
        is_news = not known or (known[0].state == "ok" and seen.state == "drifted")
    if not is_news:
        return tuple(windows)
    others = [w for w in windows if w not in known]
    return tuple(sorted([*others, seen], key=lambda w: (w.end, w.start)))[-most:]


def _drifted(
    incident: Incident, window: Seen, verdict: Verdict, policy: Policy, now: datetime
) -> tuple[Incident, Change | None]:
    """``incident`` has the window among its own."""
    row = _row(incident.windows, window)
    last = [w for w in incident.windows if w.state == "drifted"][-1]
    before = incident.causes if len(row) > 1 else ()
    if window is not last:
        seen = replace(incident, causes=_since(incident.causes, verdict.causes if last in row else ()))
    else:
        seen = replace(
            incident,
            features=verdict.features,
            value=verdict.value,
            baseline_version=verdict.baseline_version,
            evidence=verdict.evidence,
            reason=verdict.reason if policy.watch in OBSERVED else "",
            causes=_since(verdict.causes, before),
        )
    if incident.state == "firing":
        return seen, None
    if _side_by_side(row) < policy.hold:
        return _moved(seen, "pending", now), None
    found = _moved(seen, "firing", now)
    return replace(found, severity=policy.severity, late=any(w.late is not None for w in row)), "found"


def _ok(incident: Incident, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Incident, Change | None]:
    """``incident`` has the window among its own."""
    well = _side_by_side(_well_since(incident, now))
    seen = replace(incident, reason="")
    if incident.state == "firing" and well >= policy.clear:
        reason = _what_became(incident.features, dict(verdict.elsewhere))
        return replace(_ended(seen, "resolved", now), reason=reason), "cleared"
    if incident.state == "pending" and well:
        return _moved(seen, "inactive", now), None
    return seen, None


def _row(windows: Sequence[Seen], window: Seen) -> list[Seen]:
    """The drifted windows in a row that one is among.

    Where windows are drifted only by rows that came late, what is between two of them may never have been looked at
    here: nothing may be between those.
    """
    row: list[Seen] = []
    for each in windows:
        if row and not _follows(each, row[-1]):
            if window in row:
                break
            row = []
        if each.state == "drifted":
            row.append(each)
    return row


def _follows(window: Seen, before: Seen) -> bool:
    near = window.start <= before.end or (window.late is None and before.late is None)
    return window.state == "drifted" and near


def _well_since(incident: Incident, now: datetime) -> Iterable[Seen]:
    """The ok windows after the last drifted one, up to the first that rows may still be missing of."""
    drifted = [w for w in incident.windows if w.state == "drifted"]
    since = drifted[-1].end if drifted else NEVER
    ok = [w for w in incident.windows if w.state == "ok" and w.end > since]
    if all(w.late is None for w in drifted):
        return ok
    return takewhile(lambda w: now - w.judged >= incident.patience + (w.end - w.start), ok)


def _side_by_side(windows: Iterable[Seen]) -> int:
    """How many of the windows there are if those that overlap one that was counted do not count."""
    count, until = 0, NEVER
    for window in windows:
        if window.start >= until:
            count, until = count + 1, window.end
    return count


def _since(causes: Iterable[Cause], others: Iterable[Cause]) -> tuple[Cause, ...]:
    """Causes since when they or the others of the same features were there."""
    known = {c.feature: c.since for c in others}
    return tuple(replace(c, since=min(c.since, known.get(c.feature, c.since))) for c in causes)


def _what_became(features: Sequence[str], whys: Mapping[str, str]) -> str:
    """Of each feature of an incident that is over; empty where none is anything but as usual again."""
    told: dict[str, list[str]] = {}
    for feature in features:
        told.setdefault(whys.get(feature, "as usual again"), []).append(feature)
    return "; ".join(f"{', '.join(named)} {why}" for why, named in told.items()) if whys.keys() & set(features) else ""


def _is_about(one: Incident, other: Incident) -> bool:
    """Whether two incidents tell of the same watch, subject and, where it has features, some of the same."""
    same = all(getattr(one, name) == getattr(other, name) for name in SUBJECT)
    return same and (bool(set(one.features) & set(other.features)) or not (one.features or other.features))


def _in_words(length: timedelta) -> str:
    """A length of time.

    >>> _in_words(timedelta(hours=24)), _in_words(timedelta(minutes=15))
    ('24 h', '15 min')
    """
    return f"{length // HOUR} h" if length % HOUR == timedelta(0) else f"{length / timedelta(minutes=1):g} min"


def _moved(incident: Incident, state: IncidentState, now: datetime) -> Incident:
    return incident if incident.state == state else replace(incident, state=state, since=now)


def _ended(incident: Incident, state: IncidentState, now: datetime) -> Incident:
    """What was drifted is told, and proves nothing of what comes next."""
    windows = (replace(w, state="told") if w.state == "drifted" else w for w in incident.windows)
    return replace(_moved(incident, state, now), windows=tuple(windows))
