"""What a scenario's file may hold, and reading it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic import model_validator as check_whole

from detectors.layout import Kind
from monitor.columns import LATENCY, PREDICTION, SCORE
from monitor.config import ConfigError, Duration, ModelSpec, Rules, Time, WindowLength, unknown_word
from monitor.config_file import checked, load, read_text, sections

MOST_ROWS = 2_000_000
EFFECTS = ("shift", "scale", "missing", "stuck", "level", "accuracy", "label_error", "latency_ms", "errors", "rows")
OF_FEATURES = frozenset({"shift", "scale", "missing", "stuck", "level"})
OF_LEVELS = frozenset({"level"})
OF_NUMBERS = frozenset({"shift", "scale", "stuck"})
OF_A_SHARE = frozenset({"stuck", "level"})
OUTPUTS = (PREDICTION, SCORE, LATENCY)
"""What a policy may name beside the features."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Part = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


def _whole(shares: Mapping[str, float]) -> Mapping[str, float]:
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares add up to {sum(shares.values()):g}; make it 1")
    return shares


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice")
    return names


def _representable(at: datetime) -> datetime:
    if not EARLIEST <= at < LATEST:
        raise ValueError(f"must be from {EARLIEST.year} to {LATEST.year - 1}")
    return at


Shares = Annotated[dict[Name, Part], AfterValidator(_whole)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureValues(_Section):
    """How the values of a feature come: normally distributed, or as one of some levels; and how many are missing."""

    mean: float | None = None
    sd: Annotated[float, Field(ge=0)] | None = None
    levels: Shares | None = None
    missing: Part = 0.0

    @check_whole(mode="after")
    def _one_kind(self) -> Self:
        if (self.mean is None) != (self.sd is None) or (self.mean is None) == (self.levels is None):
            raise ValueError("needs either mean and sd, or levels with their shares")
        return self


class Traffic(_Section):
    """What comes when nothing is changed. Every row goes to any of the servers, and to a version by its share.

    accuracy
        Share of the labels that are what was predicted. Left out: no labels come. For classification.
    label_error
        Standard deviation between predictions and labels, where predictions have 1. For regression.
    labels_after
        So long after its prediction a label comes.
    latency_ms
        The median; left out, none is told.
    errors
        Share of the requests that fail.
    """

    rows_per_hour: Annotated[int, Field(ge=1)]
    features: Annotated[dict[Name, FeatureValues], Field(min_length=1)]
    servers: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_once)] = ("server-1",)
    versions: Shares = Field(default_factory=lambda: {"1": 1.0})
    segments: dict[Name, Shares] = Field(default_factory=dict)
    accuracy: Part | None = None
    label_error: Annotated[float, Field(ge=0)] | None = None
    labels_after: Duration = timedelta(0)
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    errors: Part = 0.0


class Change(_Section):
    """One thing that is otherwise for a while, counted from the start; on a server, of a version or a segment, or all.

    shift, scale
        Is added to every value of the feature; every value is multiplied with it.
    missing, share
        Share of the values that are missing; that are stuck or have the level (left out: all).
    stuck, level
        The value that they have instead of their own.
    rows
        Share of the rows that still come.
    accuracy, label_error, latency_ms, errors
        In place of the traffic's.
    segment
        Such as ``plan=vip``.
    """

    since: Duration = Field(alias="from", default=timedelta(0))
    until: Duration | None = None
    feature: str = ""
    shift: float | None = None
    scale: float | None = None
    missing: Part | None = None
    stuck: float | None = None
    level: str | None = None
    share: Part | None = None
    accuracy: Part | None = None
    label_error: Annotated[float, Field(ge=0)] | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    errors: Part | None = None
    rows: Part | None = None
    server: str = ""
    version: str = ""
    segment: str = ""

    @property
    def effect(self) -> str:
        """What it does."""
        return next(name for name in EFFECTS if getattr(self, name) is not None)

    @check_whole(mode="after")
    def _one_effect(self) -> Self:
        effects = [name for name in EFFECTS if getattr(self, name) is not None]
        if len(effects) != 1:
            raise ValueError(f"says {', '.join(effects) or 'nothing'} is changed; name one of {', '.join(EFFECTS)}")
        if (effects[0] in OF_FEATURES) != bool(self.feature):
            verb = "needs a feature" if effects[0] in OF_FEATURES else "is not of a feature"
            raise ValueError(f"{effects[0]} {verb}")
        if self.share is not None and effects[0] not in OF_A_SHARE:
            raise ValueError(f"share is for {' and '.join(sorted(OF_A_SHARE))}, not for {effects[0]}")
        if self.until is not None and self.until <= self.since:
            raise ValueError("until must be after from")
        return self


class Span(_Section):
    """From when to when, counted from the start."""

    since: Duration = Field(alias="from")
    until: Duration

    @check_whole(mode="after")
    def _in_order(self) -> Self:
        if self.until <= self.since:
            raise ValueError("until must be after from")
        return self


class Expectation(_Section):
    """What a policy should say. Features and places that are not named may be any; ``server: ""`` is all servers."""

    policy: str
    fires: Span | None = None
    never: bool = False
    features: tuple[str, ...] | None = None
    version: str | None = None
    server: str | None = None
    segment: str | None = None

    @check_whole(mode="after")
    def _one_of_both(self) -> Self:
        if (self.fires is None) != self.never:
            raise ValueError("needs either fires: {from, until} or never: true")
        return self


class Scenario(Rules):
    """The whole file. The models and policies stand in it, or in the configuration file that ``config`` names.

    model
        Which of the models; may be left out where there is one.
    reference_rows
        So many rows, drawn like the traffic, are what it is compared with.
    lasts
        How long the traffic goes on, and windows are judged.
    """

    config: Path | None = None
    model: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    start: Annotated[Time, AfterValidator(_representable)] = datetime(2026, 3, 2, tzinfo=UTC)
    lasts: WindowLength
    reference_rows: Annotated[int, Field(ge=200, le=MOST_ROWS)] = 5000
    traffic: Traffic
    changes: tuple[Change, ...] = ()
    expect: Annotated[tuple[Expectation, ...], Field(min_length=1)]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model or next(iter(self.models))

    @property
    def spec(self) -> ModelSpec:
        """What is declared of the model."""
        return self.models[self.name]

    def problems(self) -> Iterator[str]:
        """Names that point at nothing, and settings that contradict each other."""
        yield from super().problems()
        if self.model and self.model not in self.models:
            yield f"model: {unknown_word(self.model, 'model', self.models)}"
        elif not self.model and len(self.models) != 1:
            yield f"model: {len(self.models)} models are declared; name the one that is meant"
        else:
            yield from self._traffic_problems()
            for i, change in enumerate(self.changes):
                for at, problem in self._change_problems(change):
                    yield f"changes[{i}].{at}: {problem}"
            for i, expectation in enumerate(self.expect):
                for at, problem in self._expectation_problems(expectation):
                    yield f"expect[{i}].{at}: {problem}"

    def _traffic_problems(self) -> Iterator[str]:
        declared = self.spec.features
        for name, values in self.traffic.features.items():
            if declared and name not in declared:
                yield f"traffic.features: {unknown_word(name, 'feature of the model', declared)}"
            elif declared and (declared[name].kind is Kind.NUMERIC) != (values.levels is None):
                wanted = "mean and sd" if values.levels else "levels"
                yield f"traffic.features.{name}: the model says that it is {declared[name].kind}; give it {wanted}"
        for name in declared:
            if name not in self.traffic.features:
                yield f"traffic.features: lacks {name!r}, which the model has"
        if self.traffic.rows_per_hour * (self.lasts / timedelta(hours=1)) > MOST_ROWS:
            yield f"lasts: that is more than {MOST_ROWS:,} rows; fewer of them will do"
        of_other = "label_error" if self.spec.task == "classification" else "accuracy"
        parts = {"traffic": self.traffic, **{f"changes[{i}]": change for i, change in enumerate(self.changes)}}
        for at, part in parts.items():
            if getattr(part, of_other) is not None:
                yield f"{at}.{of_other}: is not for {self.spec.task}"

    def _change_problems(self, change: Change) -> Iterator[tuple[str, str]]:
        yield from self._place_problems(change.version, change.server, change.segment)
        if change.since >= self.lasts:
            yield "from", "the scenario is over by then; let it last longer"
        values = self.traffic.features.get(change.feature)
        if change.feature and values is None:
            yield "feature", unknown_word(change.feature, "feature", self.traffic.features)
        elif values is not None and change.effect in (OF_LEVELS if values.levels is None else OF_NUMBERS):
            yield change.effect, f"{change.feature!r} has {'numbers' if values.levels is None else 'levels'}"
        if change.effect in ("accuracy", "label_error", "latency_ms") and getattr(self.traffic, change.effect) is None:
            yield change.effect, f"add traffic.{change.effect}, which is what it is otherwise"

    def _expectation_problems(self, expectation: Expectation) -> Iterator[tuple[str, str]]:
        named = {p.name: p for p in self.policies}
        if expectation.policy not in named:
            yield "policy", unknown_word(expectation.policy, "policy", named)
        elif not named[expectation.policy].watches(self.name):
            yield "policy", f"{expectation.policy!r} does not watch {self.name!r}"
        yield from self._place_problems(expectation.version, expectation.server, expectation.segment)
        known = (*self.traffic.features, *OUTPUTS)
        for name in expectation.features or ():
            if name not in known:
                yield "features", unknown_word(name, "feature", known)
        if expectation.fires and expectation.fires.since > self.lasts:
            yield "fires.from", "the scenario is over by then; let it last longer"

    def _place_problems(
        self, version: str | None, server: str | None, segment: str | None
    ) -> Iterator[tuple[str, str]]:
        segments = [f"{name}={value}" for name, values in self.traffic.segments.items() for value in values]
        known: dict[str, tuple[str | None, Collection[str]]] = {
            "version": (version, self.traffic.versions),
            "server": (server, self.traffic.servers),
            "segment": (segment, segments),
        }
        for what, (name, names) in known.items():
            if name and name not in names:
                yield what, unknown_word(name, what, tuple(names))


def load_scenario(path: Path) -> Scenario:
    """The scenario in a YAML file; ``config`` is taken relative to its folder. Raises ConfigError."""
    raw = sections(read_text(path), path)
    config = raw.get("config")
    return checked(Scenario, raw | (_rules_of(path, config, raw) if isinstance(config, str) else {}), path)


def _rules_of(path: Path, config: str, raw: dict[str, Any]) -> dict[str, Any]:
    for name in Rules.model_fields:
        if name in raw:
            raise ConfigError(f"{path}: {name}: is also in the file that config names; leave one of them out")
    named = path.parent / config
    load(named)
    theirs = sections(read_text(named), named)
    return {name: theirs[name] for name in Rules.model_fields if name in theirs}
