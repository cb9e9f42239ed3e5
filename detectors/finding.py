"""What is measured, where, and how sure: the noun that every detector gives.

A finding only measures. It holds no threshold and no verdict: those are decided from stored findings,
so that another threshold can be tried on the same past.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Status(StrEnum):
    """Whether a finding's numbers may be used."""

    MEASURED = "measured"
    NOT_ENOUGH_DATA = "not_enough_data"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of event time of one model, ``start <= t < end``, both in UTC."""

    environment: str
    model: str
    start: datetime
    end: datetime


HOUR = timedelta(hours=1)


def step(length: timedelta) -> timedelta:
    """From the start of one window to that of the next: a third of its length, or the next larger part of it.

    Long windows overlap, so that a change that only they can see does not wait for the next of them. Steps are whole
    hours: windows of one or two hours, and those that have no such part, lie side by side.

    >>> [str(step(timedelta(hours=hours))) for hours in (1, 4, 5, 6, 24)]
    ['1:00:00', '2:00:00', '5:00:00', '2:00:00', '8:00:00']
    """
    hours = 0 if length % HOUR else length // HOUR
    return next((part * HOUR for part in range(1, hours) if not hours % part and part * 3 >= hours > 2), length)


@dataclass(frozen=True, slots=True)
class Subject:
    """What in the window is measured. An empty field means "all of them together".

    ``without`` leaves suspects out, such as ``("server=s3",)`` or ``("segment=plan=vip",)``: it tells whether a change
    is there without them. ``("version=2", "server=s3")`` is a version that runs on one server only.
    """

    version: str = ""
    server: str = ""
    segment: str = ""
    feature: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contribution:
    """One cell that differs: its label and the share of rows in the baseline and in the window."""

    cell: str
    baseline_share: float
    share: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One measurement of one subject in one window by one detector.

    detector
        Its name: ``drift``, ``server_outlier``, ``version_contrast``, ``accuracy``, ``accuracy_drop``,
        ``latency``, ``errors``, ``health``, ``schema``, ``silence``, ``fleet``,
        ``joint``.
    baseline
        What the subject is compared with: ``reference:NAME``, ``fleet``, ``version:V``, or empty.
    value, low, high
        The effect in the detector's own unit (its docstring says which) and its interval. None: not known.
    p_value
        Two-sided unless the detector says otherwise. None where nothing is tested.
    n, n_baseline
        Rows behind the subject's and the baseline's side.
    component
        The part of the change that weighs most, such as ``missing`` or ``location``.
    severity
        Effect over its tolerance: below 1 it is too small to matter, however sure it is. Ranks features.
    effects
        Named effect sizes beside the p-value.
    scores, calibrated
        By component the score as for independent rows, and as its past makes it, where it has one. What later windows
        are held against.
    exposure
        How much a difference between days shows in the scores; see ``detectors.seasons.Expectation``.
    mode
        What the p-value rests on: ``independent rows`` or ``history``.
    """

    window: Window
    subject: Subject
    detector: str
    baseline: str = ""
    status: Status = Status.MEASURED
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n: int = 0
    n_baseline: int = 0
    component: str = ""
    severity: float = 0.0
    effects: Mapping[str, float] = field(default_factory=dict)
    contributions: tuple[Contribution, ...] = ()
    message: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)
    exposure: float = 0.0
    mode: str = ""

    @property
    def id(self) -> str:
        """The same for the same measurement, however often it is made."""
        w, s = self.window, self.subject
        parts = (
            *(w.environment, w.model, w.start.isoformat(), w.end.isoformat()),
            *(s.version, s.server, s.segment, s.feature, *s.without),
            *(self.detector, self.baseline),
        )
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


BREAKS = frozenset({"schema", "undeclared", "vanished", "kind", "missing", "unusable", "unseen", "stuck", "units"})
"""Components that rather are a cause than follow from one: values that vanish, break, or were never seen."""


def worst_first(findings: Iterable[Finding], importance: Mapping[str, float] | None = None) -> list[Finding]:
    """Findings in the order in which to look at them: breaks before shifts, then by severity x importance, then by p.

    A feature that turns null or leaves its known range is a likelier root cause than one that moved, even when the
    one that moved did so by more.

    importance
        Of features to the model; 1 for those that are not named.
    """
    weights = importance or {}
    return sorted(
        findings,
        key=lambda f: (
            not (f.component in BREAKS and f.severity >= 1),
            -f.severity * weights.get(f.subject.feature, 1.0),
            1.0 if f.p_value is None else f.p_value,
            f.subject.feature,
        ),
    )
