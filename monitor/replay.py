"""Trying policies on the stored past: what is kept of findings is read, what was never measured is measured anew.

Nothing is kept, sent or asked for. The windows come in the order in which they are judged in life.
"""

from __future__ import annotations

import heapq
import itertools
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, get_args

import polars as pl

from alerts.policy import OBSERVED, ModelRules, Policy
from alerts.replay import JudgedWindow, Replayed, replay
from alerts.serving import LONGEST_LOOK
from detectors.budget import WEEK
from detectors.finding import Finding, Window, step
from monitor.config import ModelSpec, Monitor
from monitor.durations import format_duration
from monitor.findings import findings_between
from monitor.fleet import served_by_hour
from monitor.folding import HOUR, GoneError, read_hours
from monitor.judge import Judge
from monitor.late import Kind
from monitor.registry import Model
from monitor.store import Store
from monitor.usual import Learned, read_usual_scores
from monitor.windows import EPOCH, LATE_ALLOWANCE, due, floor, whole_hours

DAYS_AT_ONCE = timedelta(days=7)
LEARNING = timedelta(days=14)
"""So much before the first window that is measured anew is measured, too."""
MOST_ANEW = 3_000
"""Measuring takes some tenths of a second a window, and whoever asks waits for it."""
MONITORS: Mapping[str, str] = {
    "gradual_drift": "drift",
    "server_outlier": "servers",
    "version_contrast": "versions",
    "accuracy_drop": "accuracy",
}
"""The monitor that measures for a watch, where it is not called like it."""
LABEL_DETECTORS = frozenset({"accuracy", "accuracy_drop"})
COUNTED = ("features", "segments", "sampling", "privacy", "reference", "task", "positive_label", "threshold")
"""What decides what is counted when events come in: the past cannot be had with other settings."""
NOT_MEASURED_BY = frozenset({*COUNTED, "windows", "monitors", "false_alarms_per_week", "owner", "retention"})
"""Settings that change no measurement."""


class ReplayError(ValueError):
    """What is asked for cannot be replayed. The message says why, and what can."""


class TooManyError(ReplayError):
    """More windows would have to be measured anew than one replay does."""

    def __init__(self) -> None:
        super().__init__(f"more than {MOST_ANEW:,} windows would have to be measured anew; name a shorter span")


def replay_past(
    store: Store,
    judge: Judge,
    model: Model,
    policies: Sequence[Policy],
    tried: ModelSpec | None,
    start: datetime,
    end: datetime,
    now: datetime,
    rules_of: Callable[[Model], ModelRules],
) -> dict[str, Any]:
    """What policies would have made of a model's windows from ``start`` to ``end``, as JSON can hold it.

    tried
        What another configuration says of the model. None: it is as it is.
    rules_of
        What the alerts room must know of a model.

    Raises ReplayError.
    """
    if start >= end:
        raise ReplayError("the span ends before it begins; name an end after its start")
    began = time.perf_counter()
    spec, notes = (model.spec, []) if tried is None else _tried(model.spec, tried)
    watching = [p for p in policies if p.watches(model.name)]
    lengths = {p.name: p.window or min(spec.windows) for p in watching}
    reasons = {p.name: list(_never_measured(p, lengths[p.name], model.spec, spec)) for p in watching}
    needed = {(_kind(p), lengths[p.name]): False for p in watching}
    for p in watching:
        needed[_kind(p), lengths[p.name]] |= bool(reasons[p.name])
    as_tried = replace(model, spec=_narrowed(spec, watching))
    past = _Past(store, judge, as_tried, start, end, now)
    if sum((past.end - past.start) // step(length) for (_, length), anew in needed.items() if anew) > MOST_ANEW:
        raise TooManyError
    streams = [past.windows(kind, length, anew=anew) for (kind, length), anew in needed.items()]
    in_order = heapq.merge(*streams, key=lambda w: (w.at, w.window.end - w.window.start))
    replayed = replay(policies, rules_of(as_tried), in_order, past.traffic)
    seconds = time.perf_counter() - began
    if past.learned:
        notes.append(f"{past.learned} windows before the first were measured, too, to learn what is usual")
    if past.gone:
        notes.append(f"{past.gone} windows are not kept any more in the detail that measuring them needs")
    if not watching:
        notes.append(f"no policy watches model {model.name!r}")
    off = [p.name for p in watching if _is_off(p, spec)]
    if off:
        notes.append(f"nothing is measured for {', '.join(off)}: the monitor is off")
    weeks = max(past.end - past.start, timedelta(0)) / WEEK
    return {
        "model": model.name,
        "environment": model.environment,
        "from": past.start.isoformat(),
        "to": past.end.isoformat(),
        "windows_stored": past.stored,
        "windows_measured_anew": past.anew - past.learned,
        "seconds": round(seconds, 3),
        "windows_per_second": round((past.stored + past.anew) / seconds, 1),
        "false_alarms_per_week": spec.false_alarms_per_week,
        "expected_false_alarms": round(spec.false_alarms_per_week * weeks, 3),
        "policies": [_policy_to_dict(r, lengths[r.policy.name], reasons[r.policy.name]) for r in replayed],
        "incidents": sorted(
            (firing.to_dict() for each in replayed for firing in each.firings), key=lambda f: (f["since"], f["policy"])
        ),
        "notes": notes,
    }


@dataclass
class _Past:
    """The windows of a span, and what served in it. ``model`` is as it is tried."""

    store: Store
    judge: Judge
    model: Model
    start: datetime
    end: datetime
    now: datetime
    stored: int = 0
    anew: int = 0
    learned: int = 0
    gone: int = 0
    traffic: HourlyTraffic = field(init=False)
    _learned: dict[timedelta, Learned] = field(default_factory=dict, init=False)
    """By length; what is measured anew is nowhere else."""
    _first_event: datetime | None = field(init=False)

    def __post_init__(self) -> None:
        place = {"environment": self.model.environment, "model": self.model.name}
        span = self.store.query("event_span", **place)
        self._first_event = span["first_minute"][0] if span["profile_rows"][0] else None
        found: list[datetime] = self.store.query("first_finding", **place)["first"].to_list()
        known = [*found, *([] if self._first_event is None else [self._first_event])]
        self.end = max(self.start, min(self.end, self.now))
        self.start = min(max(self.start, min(known, default=self.end)), self.end)
        hours = whole_hours(self.start - LONGEST_LOOK, self.end)
        named = (self.model.environment, self.model.name)
        self.traffic = HourlyTraffic(served_by_hour(self.store, read_hours(self.store, *named, *hours), *hours))

    def windows(self, kind: Kind, length: timedelta, *, anew: bool) -> Iterator[JudgedWindow]:
        """The windows of a length, oldest first. ``anew``: none is taken as it was measured."""
        off = {*get_args(Monitor)} - {*self.model.spec.monitors}
        delay = LATE_ALLOWANCE + (self.model.spec.label_delay if kind == "labels" else timedelta(0))
        for windows in self._some_at_once(length, min(self.end, self.now - delay)):
            span = (windows[0].start, windows[-1].end)
            found = {} if anew else self._stored(kind, length, *span)
            for window in windows:
                findings = found.get(window)
                # Windows without labels have no findings; so where some have, all were measured.
                if findings is None and not (kind == "labels" and found):
                    findings = self._measured(window, kind)
                if findings is not None:
                    here = [f for f in findings if MONITORS.get(f.detector, f.detector) not in off]
                    yield JudgedWindow(window, window.end + delay, here)

    def _some_at_once(self, length: timedelta, ready: datetime) -> Iterator[list[Window]]:
        first = EPOCH - (EPOCH - self.start) // step(length) * step(length)
        windows = (Window(self.model.environment, self.model.name, *span) for span in due(first, length, ready))
        while some := list(itertools.islice(windows, max(DAYS_AT_ONCE // step(length), 1))):
            yield some

    def _stored(self, kind: Kind, length: timedelta, start: datetime, end: datetime) -> dict[Window, list[Finding]]:
        place = (self.model.environment, self.model.name)
        found = {
            window: [f for f in findings if (f.detector in LABEL_DETECTORS) == (kind == "labels")]
            for window, findings in findings_between(self.store, *place, length, start, end).items()
            if window.start == floor(window.start, step(length))  # others were asked for by somebody
        }
        found = {window: findings for window, findings in found.items() if findings}
        self.stored += len(found)
        return found

    def _measured(self, window: Window, kind: Kind) -> list[Finding] | None:
        if self._first_event is None or window.end <= self._first_event:
            return None
        length = window.end - window.start
        if kind == "traffic" and length not in self._learned:
            self._learned[length] = Learned()
            self._learn(window)
        if self.anew == MOST_ANEW:
            raise TooManyError
        try:
            findings = self.judge.anew(self.model, window, kind, self._learned.get(length))
        except GoneError:
            self.gone += 1
            return None
        self.anew += 1
        if kind == "traffic":
            self._learned[length].take(findings)
        return findings

    def _learn(self, first: Window) -> None:
        """Measure the windows before the first one, too, if nothing is kept of what is usual: it comes from them."""
        length = first.end - first.start
        known = {place[0] for place in read_usual_scores(self.store, self.model, first).rows}
        wanted = {d for d in ("drift", "server_outlier") if MONITORS.get(d, d) in self.model.spec.monitors}
        if wanted - known:
            steps = max(LEARNING, 10 * length) // step(length)
            before = due(first.start - steps * step(length), length, first.start)
            found = [self._measured(replace(first, start=start, end=end), "traffic") for start, end in before]
            self.learned += sum(findings is not None for findings in found)


class HourlyTraffic:
    """What served between two times, by the whole hours in between: that much is kept of the past."""

    def __init__(self, hours: pl.DataFrame) -> None:
        rows: dict[datetime, list[tuple[str, str, int]]] = {}
        for hour, version, server, count in hours.select("hour", "version", "server", "rows").iter_rows():
            rows.setdefault(hour, []).append((version, server, count))
        self._hours = sorted(rows)
        self._rows = [rows[hour] for hour in self._hours]

    def served(self, environment: str, model: str, since: datetime, until: datetime) -> Mapping[str, Mapping[str, int]]:  # noqa: ARG002 - it knows only one model
        """Rows of each version on each server in the whole hours from ``since`` to ``until``."""
        served: dict[str, dict[str, int]] = {}
        for some in self._rows[bisect_left(self._hours, since) : bisect_right(self._hours, until - HOUR)]:
            for version, server, count in some:
                servers = served.setdefault(version, {})
                servers[server] = servers.get(server, 0) + count
        return served


def _tried(live: ModelSpec, other: ModelSpec) -> tuple[ModelSpec, list[str]]:
    """The model as the other configuration has it, but for what the past cannot be had with, which is told."""
    differ = [n for n in COUNTED if n in other.model_fields_set and getattr(other, n) != getattr(live, n)]
    notes = [
        f"{name} of the other configuration: not tried, as the past was counted with what is now" for name in differ
    ]
    return other.model_copy(update={name: getattr(live, name) for name in COUNTED}), notes


def _never_measured(policy: Policy, length: timedelta, live: ModelSpec, tried: ModelSpec) -> Iterator[str]:
    """Why what a policy looks at is to be measured anew."""
    monitor = MONITORS.get(policy.watch, policy.watch)
    if _is_off(policy, tried):
        return
    if _is_off(policy, live):
        yield f"the monitor {monitor!r} was off"
    if length not in live.windows:
        yield f"windows of {format_duration(length)} were never measured"
    for name in ModelSpec.model_fields:
        concerns = name not in NOT_MEASURED_BY and (name != "label_delay" or _kind(policy) == "labels")
        was, is_ = getattr(live, name), getattr(tried, name)
        if concerns and was != is_:
            yield f"{name} was {_shown(was)}, and is {_shown(is_)}"


def _is_off(policy: Policy, spec: ModelSpec) -> bool:
    return policy.watch != "health" and MONITORS.get(policy.watch, policy.watch) not in spec.monitors


def _narrowed(spec: ModelSpec, policies: Sequence[Policy]) -> ModelSpec:
    """Without the monitors of facts that no policy watches: they read two weeks for each window."""
    watched = {p.watch for p in policies}
    return spec.model_copy(update={"monitors": tuple(m for m in spec.monitors if m not in OBSERVED or m in watched)})


def _kind(policy: Policy) -> Kind:
    return "labels" if policy.watch in LABEL_DETECTORS else "traffic"


def _shown(value: object) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)


def _policy_to_dict(replayed: Replayed, length: timedelta, reasons: Sequence[str]) -> dict[str, Any]:
    policy = replayed.policy
    return {
        "policy": policy.name,
        "watch": policy.watch,
        "window": format_duration(length),
        "windows": sum(replayed.windows.values()),
        **{str(state): count for state, count in replayed.windows.items()},
        "fired": len(replayed.firings),
        "measured_anew": list(reasons),
    }
