"""What counts: verdicts from findings, by the rules that the configuration names.

Everything here is a pure function of stored findings, so another policy can be tried on the same past. A verdict is
``ok``, ``drifted``, ``unsure`` (not enough data, or not testable) or ``error`` (could not be measured); only
``drifted`` ever leads to an action, and neither of the last two is ever turned into one of the first two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Literal

from detectors.finding import Finding, Status, Subject, Window, worst_first
from detectors.multiplicity import holm, window_alpha

Watch = Literal[
    "drift",
    "server_outlier",
    "version_contrast",
    "accuracy_drop",
    "joint",
    "latency",
    "errors",
    "health",
    "schema",
    "silence",
    "fleet",
]
State = Literal["ok", "drifted", "unsure", "error"]
Place = tuple[str, str, str]

MOST_TOLD = 3
"""So many facts are told in words; all are among the evidence."""
STATISTICAL = frozenset({"drift", "server_outlier", "version_contrast", "accuracy_drop", "joint"})
"""Watches that test a hypothesis, and so share the model's budget of false alarms."""
LIMITED = frozenset({"latency", "errors", "health"})
"""Watches that hold a measurement against a limit."""
OBSERVED = frozenset({"schema", "silence", "fleet"})
"""Watches of facts. Nothing is tested, so they take nothing of the budget; each verdict says what was seen."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to watch, when to believe it, and what to do then.

    models
        Names; empty means every model.
    window
        Length of the windows to judge. None: the model's shortest.
    hold, clear
        Drifted windows in a row until it is found, ok windows in a row until it is cleared.
    margin
        ``accuracy_drop``: increase of the loss that is tolerated.
    limit
        ``latency``: 95th percentile in ms. ``errors``, ``health``: share that failed. Exceeded when the whole
        confidence interval is above it.
    least_severity
        What is below it does not count, however significant (``drift``, ``server_outlier``, ``version_contrast``), or
        however true (``schema``, ``silence``, ``fleet``).
    severity, notify
        A ``notice`` is kept on the time line; a ``page`` is also sent to the notifiers named.
    action
        The action to ask for, once, when it is found.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str
    watch: Watch
    models: tuple[str, ...] = ()
    window: timedelta | None = None
    hold: int = 2
    clear: int = 2
    margin: float = 0.0
    limit: float | None = None
    least_severity: float = 1.0
    severity: Literal["notice", "page"] = "notice"
    notify: tuple[str, ...] = ()
    action: str | None = None

    def __post_init__(self) -> None:
        if self.hold < 1 or self.clear < 1:
            raise ValueError(f"hold is {self.hold} and clear is {self.clear}; both must be at least 1")
        if self.margin < 0:
            raise ValueError(
                f"margin is {self.margin}; it is a tolerated increase of the loss and must not be negative"
            )
        if (self.limit is None) == (self.watch in LIMITED):
            verb = "needs a limit" if self.watch in LIMITED else "takes no limit"
            raise ValueError(f"watch {self.watch!r} {verb}; it is for {', '.join(sorted(LIMITED))}")
        if self.notify and self.severity != "page":
            raise ValueError("notify is only for severity: page; a notice is sent to nobody")

    def watches(self, model: str) -> bool:
        """Whether this model is one of its models."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What the alerts room must know of a model: its name, its alarm budget and its shortest window."""

    environment: str
    model: str
    false_alarms_per_week: float
    shortest_window: timedelta


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says of one subject in one window.

    features
        Those that count, worst first: empty unless drifted, and for watches that are not about features.
    value
        The worst feature's, else the finding's; in the unit of the detector.
    evidence
        Ids of the findings that it rests on.
    reason
        Why it is not ``drifted``, or in part; of a watch of facts what was seen.
    """

    policy: str
    state: State
    version: str
    server: str
    segment: str
    window: Window
    baseline_version: str = ""
    features: tuple[str, ...] = ()
    value: float | None = None
    evidence: tuple[str, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "policy": self.policy,
            "state": self.state,
            "version": self.version,
            "server": self.server,
            "segment": self.segment,
            "start": self.window.start.isoformat(),
            "end": self.window.end.isoformat(),
            "baseline_version": self.baseline_version,
            "features": list(self.features),
            "value": self.value,
            "evidence": list(self.evidence),
            "reason": self.reason,
        }


def judge_window(
    policies: Sequence[Policy], rules: ModelRules, findings: Sequence[Finding], window_length: timedelta
) -> list[tuple[Policy, Verdict]]:
    """The verdicts of every policy that watches this model at this window length, in the order of the policies.

    The model's budget is divided evenly between its statistical policies, whatever their window. The findings are
    those of one window.
    """
    applying = [p for p in policies if p.watches(rules.model)]
    sharers = sum(p.watch in STATISTICAL for p in applying)
    alpha = window_alpha(rules.false_alarms_per_week, window_length, max(sharers, 1))
    here = [p for p in applying if (p.window or rules.shortest_window) == window_length]
    verdicts = {p.name: judge(p, findings, alpha) for p in here}
    outliers = [v for p in here if p.watch == "server_outlier" for v in verdicts[p.name]]
    for p in here:
        if p.watch == "drift":
            verdicts[p.name] = explain(p, verdicts[p.name], outliers, findings, alpha)
    return [(p, _inputs_named(verdict, findings)) for p in here for verdict in verdicts[p.name]]


def _inputs_named(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    """Where inputs changed, the model's outputs (their names begin with ``@``) follow from them and are not named."""
    inputs = tuple(f for f in verdict.features if not f.startswith("@"))
    if not inputs or inputs == verdict.features:
        return verdict
    value = next(f.value for f in findings if f.id in verdict.evidence and f.subject.feature == inputs[0])
    return replace(verdict, features=inputs, value=value)


def judge(policy: Policy, findings: Sequence[Finding], alpha: float) -> list[Verdict]:
    """One verdict for each subject that the policy's detector measured in a window; none where it measured nothing.

    ``alpha`` bounds the chance that any verdict of a statistical policy in a window is wrongly ``drifted``: Holm's
    correction spans all features, versions, servers and segments together. It holds as far as the findings' p-values
    do. Findings that leave a server out are not judged; see ``explain``.
    """
    own = [f for f in findings if f.detector == policy.watch and not f.subject.without_server]
    if policy.watch == "drift":
        own = [f for f in own if not f.subject.server]
    by_place: dict[Place, list[Finding]] = defaultdict(list)
    for f in own:
        by_place[_place(f.subject)].append(f)
    if policy.limit is not None:
        lows = {f.id: f.low for f in own if f.status is Status.MEASURED and f.low is not None}
        usable, counting = set(lows), {id_ for id_, low in lows.items() if low > policy.limit}
    elif policy.watch in OBSERVED:
        seen = {f.id: f.severity for f in own if f.status is Status.MEASURED}
        usable, counting = set(seen), {id_ for id_, severity in seen.items() if severity >= policy.least_severity}
    else:
        adjusted = _adjusted(policy, own)
        usable, counting = set(adjusted), {f.id for f in own if _counts(policy, f, adjusted, alpha)}
    return [_verdict(policy, group, usable, counting) for group in by_place.values()]


def explain(
    policy: Policy,
    drift_verdicts: Sequence[Verdict],
    outlier_verdicts: Sequence[Verdict],
    findings: Sequence[Finding],
    alpha: float,
) -> list[Verdict]:
    """Drift verdicts without the features whose change is one server's rather than the model's.

    A feature is dropped when an outlier verdict of the same window pins it on a server, and the drift measured without
    that server does not count by the policy's own rule. A verdict with no feature left is ``ok``. Where two servers
    have the same fault, leaving out either does not help, and the drift stays.
    """
    pinned: dict[str, set[str]] = defaultdict(set)
    for outlier in outlier_verdicts:
        pinned[outlier.server].update(outlier.features)
    cleared: dict[tuple[str, str, str], str] = {}
    for server, features in sorted(pinned.items()):
        without = [f for f in findings if f.detector == "drift" and f.subject.without_server == server]
        adjusted = _adjusted(policy, without)
        for f in without:
            if f.subject.feature in features and f.id in adjusted and not _counts(policy, f, adjusted, alpha):
                cleared[f.subject.version, f.subject.segment, f.subject.feature] = server
    return [_explained(v, cleared, findings) for v in drift_verdicts]


def _explained(verdict: Verdict, cleared: Mapping[tuple[str, str, str], str], findings: Sequence[Finding]) -> Verdict:
    servers = {f: cleared.get((verdict.version, verdict.segment, f)) for f in verdict.features}
    guilty = sorted({s for s in servers.values() if s is not None})
    if not guilty:
        return verdict
    left = tuple(f for f, server in servers.items() if server is None)
    reason = f"explained by server {', '.join(guilty)}"
    if not left:
        return replace(verdict, state="ok", features=(), value=None, reason=reason)
    kept = [f for f in findings if f.id in verdict.evidence and f.subject.feature in left]
    evidence = tuple(f.id for f in kept)
    value = next(f.value for f in kept if f.subject.feature == left[0])
    reason = f"{', '.join(f for f in servers if f not in left)} {reason}"
    return replace(verdict, features=left, value=value, evidence=evidence, reason=reason)


def _verdict(policy: Policy, group: Sequence[Finding], usable: set[str], counting: set[str]) -> Verdict:
    """The verdict on one subject, from its findings and the ids of those that can be judged and of those that count."""
    first = group[0]
    subject = first.subject
    blank = Verdict(
        policy.name,
        "ok",
        subject.version,
        subject.server,
        subject.segment,
        first.window,
        first.baseline.removeprefix("version:") if first.baseline.startswith("version:") else "",
    )
    worst = worst_first(f for f in group if f.id in counting)
    if worst:
        features = tuple(f.subject.feature for f in worst if f.subject.feature)
        told = "; ".join(f.message for f in worst[:MOST_TOLD]) if policy.watch in OBSERVED | {"joint"} else ""
        return replace(
            blank, state="drifted", features=features, value=worst[0].value, evidence=_ids(worst), reason=told
        )
    broken = [f for f in group if f.status is Status.ERROR]
    if broken:
        return replace(blank, state="error", evidence=_ids(broken), reason=_message(broken, "could not be measured"))
    measured = [f for f in group if f.id in usable]
    if not measured:
        return replace(blank, state="unsure", evidence=_ids(group), reason=_message(group, "not enough data"))
    return replace(blank, value=worst_first(measured)[0].value, evidence=_ids(measured))


def _counts(policy: Policy, finding: Finding, adjusted: Mapping[str, float], alpha: float) -> bool:
    severe = policy.watch == "accuracy_drop" or finding.severity >= policy.least_severity
    return severe and finding.id in adjusted and adjusted[finding.id] <= alpha


def _adjusted(policy: Policy, findings: Sequence[Finding]) -> dict[str, float]:
    """Holm's adjusted p-values of the findings that can be tested, by id."""
    p_values = {f.id: p for f in findings if (p := _p_value(policy, f)) is not None}
    return dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))


def _p_value(policy: Policy, finding: Finding) -> float | None:
    if finding.status is not Status.MEASURED or finding.p_value is None:
        return None
    if policy.watch != "accuracy_drop" or finding.value is None:
        return finding.p_value
    from detectors.accuracy import worse_by_more_than

    return worse_by_more_than(finding.value, finding.effects["standard_error"], policy.margin)


def _place(subject: Subject) -> Place:
    return subject.version, subject.server, subject.segment


def _ids(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(f.id for f in findings)


def _message(findings: Sequence[Finding], otherwise: str) -> str:
    return next((f.message for f in findings if f.message), otherwise)
