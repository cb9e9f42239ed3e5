"""What counts: verdicts from findings, by the rules that the configuration names.

Everything here is a pure function of stored findings, so another policy can be tried on the same past. A verdict is
``ok``, ``drifted``, ``unsure`` (not enough data, or not testable) or ``error`` (could not be measured); only
``drifted`` ever leads to an action, and neither of the last two is ever turned into one of the first two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, Literal, Self

from alerts.places import Cause, Located, Where, gone_without, in_words, smallest_places
from detectors.budget import Look, Share, split
from detectors.finding import Finding, Status, Subject, Window, step, worst_first
from detectors.multiplicity import holm

Watch = Literal[
    "drift",
    "gradual_drift",
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

DAY = timedelta(days=1)
MOST_TOLD = 3
"""So many facts are told in words; all are among the evidence."""
LIMITED = frozenset({"latency", "errors", "health"})
"""Watches that hold a measurement against a limit."""
STATISTICAL = LIMITED | {"drift", "gradual_drift", "server_outlier", "version_contrast", "accuracy_drop", "joint"}
"""Watches that test a hypothesis, and so share the model's budget of false alarms."""
DOWN_PROBES = 3
"""A server that passed none of so many health checks is down. That is seen, not tested, however few there are."""
SIDE_BY_SIDE = frozenset({"gradual_drift", "joint"})
"""Of these, which are measured in windows that do not overlap."""
OBSERVED = frozenset({"schema", "silence", "fleet"})
"""Watches of facts. Nothing is tested, so they take nothing of the budget; each verdict says what was seen."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to watch, when to believe it, and what to do then.

    models
        Names; empty means every model.
    window
        Length of the windows to judge. None: the model's shortest; a day for ``gradual_drift``, which adds up days.
    hold, clear
        Drifted windows in a row until it is found, ok windows in a row until it is cleared. Windows that overlap one
        that was counted are not counted, but must agree.
    margin
        ``accuracy_drop``: increase of the loss that is tolerated.
    limit
        ``latency``: 95th percentile in ms. ``errors``, ``health``: share that failed. Exceeded when a true value at
        the limit would bring what came with a chance within the policy's share of the budget; a server that failed
        all its health checks (three at least) exceeds any.
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
        if self.watch == "gradual_drift" and self.window not in (None, DAY):
            raise ValueError("gradual_drift adds up days; leave window out")
        if self.notify and self.severity != "page":
            raise ValueError("notify is only for severity: page; a notice is sent to nobody")

    @property
    def own_length(self) -> timedelta | None:
        """Of the windows that it judges, where that is not the model's shortest."""
        return DAY if self.watch == "gradual_drift" else self.window

    def length(self, rules: ModelRules) -> timedelta:
        """Of the windows that it judges."""
        return self.own_length or rules.shortest_window

    def watches(self, model: str) -> bool:
        """Whether this model is one of its models."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What the alerts room must know of a model: its name, its alarm budget and its shortest window.

    importance
        Of features to the model; 1 for those that are not named.
    """

    environment: str
    model: str
    false_alarms_per_week: float
    shortest_window: timedelta
    importance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says of one subject in one window.

    features, causes
        Those that count, worst first, and what is known of each: empty unless drifted, and for watches that are not
        about features.
    info
        Features that changed for sure, by less than matters.
    value
        The worst feature's, else the finding's; in the unit of the detector.
    evidence
        Ids of the findings that it rests on.
    reason
        Why it is not ``drifted``, or in part; of a watch of facts what was seen.
    elsewhere
        Features that changed and are told of another place, and why.
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
    causes: tuple[Cause, ...] = ()
    info: tuple[str, ...] = ()
    elsewhere: tuple[tuple[str, str], ...] = ()

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
            "causes": [c.to_dict() for c in self.causes],
            "info": list(self.info),
        }


def judge_window(
    policies: Sequence[Policy],
    rules: ModelRules,
    findings: Sequence[Finding],
    window_length: timedelta,
    times_again: int = 0,
) -> list[tuple[Policy, Verdict]]:
    """The verdicts of every policy that watches this model at this window length, in the order of the policies.

    What a policy may spend of the model's budget of false alarms is said by ``shares``. The findings are those of one
    window.

    times_again
        This is so many times that it is judged again: 1 the first time.
    """
    applying = [p for p in policies if p.watches(rules.model)]
    alphas = {
        (share.look.detector, share.look.length): share.alpha_again(times_again) if times_again else share.alpha
        for share in shares(applying, rules)
    }
    here = [p for p in applying if p.length(rules) == window_length]
    alpha_of = {p.name: alphas.get((p.watch, window_length), 0.0) for p in here}
    judged = [(p, verdict) for p in here for verdict in judge(p, findings, alpha_of[p.name], rules.importance)]
    return [(p, _inputs_named(verdict, findings)) for p, verdict in explain(judged, findings, alpha_of)]


def shares(policies: Sequence[Policy], rules: ModelRules) -> list[Share]:
    """Where the model's budget of false alarms goes: to each kind of window that its statistical policies look at.

    Policies that look at the same windows of the same detector alarm together, and share one look.
    """
    looks = {(p.watch, p.length(rules)): None for p in policies if p.watches(rules.model) and p.watch in STATISTICAL}
    steps = {look: look[1] if look[0] in SIDE_BY_SIDE else step(look[1]) for look in looks}
    return split(rules.false_alarms_per_week, [Look(*look, every) for look, every in steps.items()])


def _inputs_named(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    """Where inputs changed, the model's outputs (their names begin with ``@``) follow from them and are not named."""
    inputs = tuple(c for c in verdict.causes if not c.feature.startswith("@"))
    if not inputs or inputs == verdict.causes:
        return verdict
    value = next(f.value for f in findings if f.id in verdict.evidence and f.subject.feature == inputs[0].feature)
    return replace(verdict, features=_names(inputs), causes=inputs, value=value)


def judge(
    policy: Policy, findings: Sequence[Finding], alpha: float, importance: Mapping[str, float] | None = None
) -> list[Verdict]:
    """One verdict for each subject that the policy's detector measured in a window; none where it measured nothing.

    ``alpha`` bounds the chance that any verdict of a statistical policy in a window is wrongly ``drifted``: Holm's
    correction spans all features, versions, servers and segments together. It holds as far as the findings' p-values
    do. Findings that leave a place out are not judged; see ``explain``.

    importance
        Of features: root causes come in the order of severity x importance.
    """
    own = [f for f in findings if f.detector == policy.watch and not f.subject.without]
    if policy.watch == "drift":
        own = [f for f in own if not f.subject.server]
    trivial: set[str] = set()
    if policy.watch in OBSERVED:
        seen = {f.id: f.severity for f in own if f.status is Status.MEASURED}
        usable, counting = set(seen), {id_ for id_, severity in seen.items() if severity >= policy.least_severity}
    else:
        adjusted = _adjusted(policy, own)
        sure = {f.id for f in own if f.id in adjusted and (adjusted[f.id] <= alpha or _is_down(policy, f))}
        counting = {f.id for f in own if f.id in sure and _matters(policy, f)}
        usable, trivial = set(adjusted), sure - counting
    ranked = worst_first(own, importance)
    by_place: dict[Place, list[Finding]] = {_place(f.subject): [] for f in own}
    for f in ranked:
        by_place[_place(f.subject)].append(f)
    return [_verdict(policy, group, usable, counting, trivial) for group in by_place.values()]


def explain(
    judged: Sequence[tuple[Policy, Verdict]], findings: Sequence[Finding], alphas: Mapping[str, float]
) -> list[tuple[Policy, Verdict]]:
    """The verdicts of one window, so that each change has one answer: the smallest place that explains it.

    Each cause gets the place that explains it (``where``). A cause is dropped where a verdict on that smaller place has
    it, too; of a segment, where everything changed; of a version, where it is the other version that changed. A verdict
    with no cause left is ``ok``. Two servers with one fault are one place, as are two segments of one key.

    alphas
        By policy the chance of a false alarm that it may take.
    """
    drifted = [(p, v) for p, v in judged if v.causes and p.watch in STATISTICAL]
    pinned = {(_own_place(p, v), c.feature) for p, v in drifted for c in v.causes}
    changed = {(v.version, c.feature) for p, v in drifted if p.watch == "drift" and not v.segment for c in v.causes}
    places = {p.name: _Places.of(p, findings, alphas[p.name], pinned, changed) for p, _ in drifted}
    return [(p, _explained(p, v, places[p.name], findings) if p.name in places else v) for p, v in judged]


@dataclass(frozen=True)
class _Places:
    """What is known of where the changes of a window are.

    located, gone
        See ``smallest_places`` and ``gone_without``.
    pinned
        Places that a verdict is about, and features that it names there.
    changed
        Versions (empty: all) and features that changed against the reference.
    """

    located: Located
    gone: Located
    pinned: Collection[tuple[str, str]]
    changed: Collection[tuple[str, str]]

    @classmethod
    def of(
        cls,
        policy: Policy,
        findings: Sequence[Finding],
        alpha: float,
        pinned: Collection[tuple[str, str]],
        changed: Collection[tuple[str, str]],
    ) -> Self:
        def counts(finding: Finding) -> bool:
            return finding.p_value is not None and finding.p_value <= alpha and _matters(policy, finding)

        return cls(smallest_places(findings, counts), gone_without(findings, counts), pinned, changed)

    def answer(self, policy: Policy, verdict: Verdict, feature: str) -> tuple[Where, bool]:
        """Where a feature changed, and whether that is told there rather than here."""
        own = (_own_place(policy, verdict),)
        at = self.located.get((verdict.version, feature)) or self.located.get(("", feature), ())
        if policy.watch == "version_contrast":
            return self._between_versions(verdict, feature, own, at)
        everywhere = any(key in self.changed for key in ((verdict.version, feature), ("", feature)))
        if policy.watch == "server_outlier":
            return (at if own[0] in at else () if everywhere and not at else self._alike(own[0], feature)), False
        if own[0] in at:
            return at, False
        if at and self._is_pinned(at, feature):
            return at, True
        if verdict.segment:
            return at if at or everywhere else self._alike(own[0], feature), everywhere
        return at, False

    def _between_versions(self, verdict: Verdict, feature: str, own: Where, at: Where) -> tuple[Where, bool]:
        servers = self.gone.get((verdict.version, feature), ())
        if servers and self._is_pinned(servers, feature):
            return servers, True
        if own[0] in at:
            return at, False
        other = any(part.startswith("version=") for part in at) and ("", feature) in self.changed
        return (at, True) if other else (servers or own, False)

    def _alike(self, own: str, feature: str) -> Where:
        """All servers, or all values of the segment's key, that a verdict names for a feature."""
        kind = "=".join(own.split("=")[: 2 if own.startswith("segment=") else 1])
        return tuple(sorted(part for part, named in self.pinned if named == feature and part.startswith(f"{kind}=")))

    def _is_pinned(self, where: Where, feature: str) -> bool:
        return any((part, feature) in self.pinned for part in where)


def _own_place(policy: Policy, verdict: Verdict) -> str:
    if policy.watch == "server_outlier":
        return f"server={verdict.server}"
    return f"segment={verdict.segment}" if verdict.segment else f"version={verdict.version}"


def _explained(policy: Policy, verdict: Verdict, places: _Places, findings: Sequence[Finding]) -> Verdict:
    kept: list[Cause] = []
    elsewhere: dict[str, list[str]] = defaultdict(list)
    for cause in verdict.causes:
        where, told_there = places.answer(policy, verdict, cause.feature)
        if told_there:
            elsewhere[f"explained by {in_words(where)}" if where else "as everywhere"].append(cause.feature)
        else:
            kept.append(replace(cause, where=in_words(where)))
    if not elsewhere:
        return replace(verdict, causes=tuple(kept))
    reason = "; ".join(elsewhere)
    if not kept:
        by_feature = tuple((feature, why) for why, features in elsewhere.items() for feature in features)
        return replace(verdict, state="ok", features=(), causes=(), value=None, reason=reason, elsewhere=by_feature)
    left = [f for f in findings if f.id in verdict.evidence and f.subject.feature in _names(kept)]
    value = next(f.value for f in left if f.subject.feature == kept[0].feature)
    reason = "; ".join(f"{', '.join(features)} {why}" for why, features in elsewhere.items())
    told = replace(verdict, features=_names(kept), causes=tuple(kept), value=value)
    return replace(told, evidence=_ids(left), reason=reason)


def _verdict(
    policy: Policy, group: Sequence[Finding], usable: set[str], counting: set[str], trivial: set[str]
) -> Verdict:
    """The verdict on one subject, from its findings, worst first, and the ids of those that can be judged, and so on.

    counting, trivial
        Those that count, and those that are as sure but too small to matter.
    """
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
        info=tuple(f.subject.feature for f in group if f.id in trivial),
    )
    worst = [f for f in group if f.id in counting]
    if worst:
        causes = tuple(_cause(f) for f in worst if f.subject.feature)
        told = "; ".join(f.message for f in worst[:MOST_TOLD]) if policy.watch in OBSERVED | {"joint"} else ""
        return replace(
            blank,
            state="drifted",
            features=_names(causes),
            causes=causes,
            value=worst[0].value,
            evidence=_ids(worst),
            reason=told,
        )
    broken = [f for f in group if f.status is Status.ERROR]
    if broken:
        return replace(blank, state="error", evidence=_ids(broken), reason=_message(broken, "could not be measured"))
    measured = [f for f in group if f.id in usable]
    if not measured:
        return replace(blank, state="unsure", evidence=_ids(group), reason=_message(group, "not enough data"))
    return replace(blank, value=measured[0].value, evidence=_ids(measured))


def _matters(policy: Policy, finding: Finding) -> bool:
    """Those of accuracy and of limits have no severity: margin and limit say what matters."""
    return policy.watch == "accuracy_drop" or policy.watch in LIMITED or finding.severity >= policy.least_severity


def _is_down(policy: Policy, finding: Finding) -> bool:
    return policy.watch == "health" and finding.value == 1 and finding.n >= DOWN_PROBES


def _cause(finding: Finding) -> Cause:
    return Cause(finding.subject.feature, finding.component, "", finding.severity, finding.window.start)


def _names(causes: Sequence[Cause]) -> tuple[str, ...]:
    return tuple(c.feature for c in causes)


def _adjusted(policy: Policy, findings: Sequence[Finding]) -> dict[str, float]:
    """Holm's adjusted p-values of the findings that can be tested, by id."""
    p_values = {f.id: p for f in findings if (p := _p_value(policy, f)) is not None}
    return dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))


def _p_value(policy: Policy, finding: Finding) -> float | None:
    """Of the finding, or of what the policy tolerates: a margin or a limit. None where it cannot be tested."""
    if finding.status is not Status.MEASURED:
        return None
    if policy.limit is not None:
        return None if finding.value is None else _p_of_limit(finding, finding.value, policy.limit)
    if finding.p_value is None or policy.watch != "accuracy_drop" or finding.value is None:
        return finding.p_value
    from detectors.accuracy import worse_by_more_than

    return worse_by_more_than(finding.value, finding.effects["standard_error"], policy.margin)


def _p_of_limit(finding: Finding, value: float, limit: float) -> float:
    if finding.detector == "latency":
        from detectors.latency import slower_than

        return slower_than(finding.effects, limit)
    from detectors.intervals import above

    return above(value * finding.n, finding.n, limit)


def _place(subject: Subject) -> Place:
    return subject.version, subject.server, subject.segment


def _ids(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(f.id for f in findings)


def _message(findings: Sequence[Finding], otherwise: str) -> str:
    return next((f.message for f in findings if f.message), otherwise)
