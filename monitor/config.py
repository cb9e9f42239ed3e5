"""What ``telltale.yaml`` may hold. ``config_file.py`` reads it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic import model_validator as check_whole
from pydantic_core import CoreSchema, core_schema

import alerts.notifiers
from alerts.actions.rollback import Rollback
from alerts.kinds import kinds_in
from alerts.notifiers import Notifier
from alerts.policy import Policy
from detectors.layout import Kind
from monitor.adapters import AdapterSettings
from monitor.durations import format_duration, parse_duration

FEATURE_KINDS = ("numeric", "categorical")
KEY_FIELDS = {"type", "environment", "model", "version", "server", "prediction_id", "timestamp", "prediction", "label"}
READ_FIELDS = {"at", "row", "features", "segments", "sampling_fraction", "status", "role", "latency_ms", "text"}
LONGEST_WINDOW = timedelta(days=366)
LONGEST_DELAY = timedelta(days=3660)
LONGEST_KEPT = timedelta(days=36600)
ROWS_KEPT = timedelta(days=90)
Task = Literal["classification", "regression"]
Monitor = Literal[
    "drift", "servers", "versions", "accuracy", "latency", "errors", "schema", "silence", "fleet", "joint"
]
MONITORS: tuple[Monitor, ...] = tuple(m for m in get_args(Monitor) if m != "joint")
"""What is watched unless a model says otherwise: all that costs no more than milliseconds a window."""
Scope = Literal["ingest", "read", "admin"]
LEDGERS = {"sqlite": "sqlite:////var/lib/telltale/ledger.db", "postgresql": "postgresql://user@host:5432/database"}
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class ConfigError(Exception):
    """The configuration is wrong. Each line: the path in the file, the problem, what would be right."""


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("has no time zone; write it as 2026-01-31T00:00Z")
    return value.astimezone(UTC)


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone; write one such as UTC or Europe/Berlin") from None
    return value


def _whole_minutes(value: timedelta) -> timedelta:
    if value <= timedelta(0) or value % timedelta(minutes=1):
        raise ValueError("is not a whole number of minutes; write one such as 15m, 1h or 1d")
    if value > LONGEST_WINDOW:
        raise ValueError(f"is longer than {format_duration(LONGEST_WINDOW)}; write one such as 15m, 1h or 1d")
    return value


def _delay(value: timedelta) -> timedelta:
    if not timedelta(0) <= value <= LONGEST_DELAY:
        raise ValueError(f"must be from 0s to {format_duration(LONGEST_DELAY)}")
    return value


def _kept(value: timedelta) -> timedelta:
    if not timedelta(days=1) <= value <= LONGEST_KEPT:
        raise ValueError(f"must be from 1d to {format_duration(LONGEST_KEPT)}")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"{value[:100]!r} is not a URL; write one such as http://10.0.0.11:8080/health")
    return value


def _server_url(schemes: tuple[str, ...], example: str) -> AfterValidator:
    """The URL of a database server, without a password."""

    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            right = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            right = False
        if not right:
            raise ValueError(f"is not the URL of such a server; write one such as {example}")
        if parts.password is not None:
            raise ValueError("must not hold the password; name where it is with password_file or password_env")
        if parts.query or parts.fragment:
            raise ValueError(f"holds more than user, host, port and database; write one such as {example}")
        return value

    return AfterValidator(check)


ClickHouseUrl = Annotated[
    str, _server_url(("clickhouse", "clickhouses"), "clickhouse://telltale@10.0.0.5:9000/telltale")
]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
WindowLength = Annotated[Duration, AfterValidator(_whole_minutes)]
Kept = Annotated[Duration, AfterValidator(_kept)]
Time = Annotated[datetime, AfterValidator(_utc)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureSpec(_Spec):
    """One declared feature.

    levels
        The values a categorical one may take, in the order to show them.
    importance
        How much the model depends on it: root causes come in the order of severity x importance.
    """

    kind: Kind = Kind.NUMERIC
    levels: tuple[str, ...] = ()
    importance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


def _feature(value: object) -> object:
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, dict) and value.get("kind", "numeric") not in FEATURE_KINDS:
        raise ValueError(f"{value['kind']!r} is not a kind of feature; use numeric or categorical")
    return value


class Sampling(_Spec):
    """How many rows are kept, of each kind. Profiles always count everything.

    A prediction whose features are kept is kept, too, so that features can be removed with what they are about.
    """

    predictions: Share = 1.0
    features: Share = 1.0


class ReferenceWindow(_Spec):
    """A past span of the model's own traffic to compare with."""

    start: Time
    end: Time

    @check_whole(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError("end must be after start")
        return self


class ReferenceSpec(_Spec):
    """What traffic is compared with: a file, or a past window."""

    file: Path | None = None
    window: ReferenceWindow | None = None

    @check_whole(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.window is None):
            raise ValueError("needs either file or window")
        return self


class Privacy(_Spec):
    """Fields that never reach the store: dropped, or replaced by a keyed hash (HMAC-SHA256)."""

    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    hash_key_env: str | None = None
    hash_key_file: Path | None = None

    @check_whole(mode="after")
    def _key_for_hashes(self) -> Self:
        if self.hash and not (self.hash_key_env or self.hash_key_file):
            raise ValueError(
                "hash needs hash_key_env or hash_key_file: an unkeyed hash of personal data can be guessed"
            )
        return self


class Retention(_Spec):
    """How long what came in is kept, by the time of the events.

    rows
        Predictions, feature rows and labels. Left out: 90 days, or as long as judging needs them if that is longer.
    minutes
        Profiles as batches brought them, by the minute, after their hour was added up and nothing more came in for it.
        Late events have their windows judged again for as long. To be longer than any pause of ingest.
    hours
        Profiles of whole hours.
    findings
        What was measured of windows.
    """

    rows: Kept | None = None
    minutes: Kept = timedelta(days=3)
    hours: Kept = timedelta(days=400)
    findings: Kept = timedelta(days=400)


class ModelSpec(_Spec):
    """What is known of a model and what to watch in it."""

    task: Task = "classification"
    features: dict[str, Annotated[FeatureSpec, BeforeValidator(_feature)]] = Field(default_factory=dict)
    positive_label: str | None = None
    threshold: float | None = None
    segments: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    sampling: Sampling = Sampling()
    label_delay: Annotated[Duration, AfterValidator(_delay)] = timedelta(days=1)
    reference: ReferenceSpec | None = None
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    holidays: tuple[date, ...] = ()
    owner: str = ""
    routing: Literal["unknown", "random"] = "unknown"
    monitors: tuple[Monitor, ...] = MONITORS
    windows: Annotated[tuple[WindowLength, ...], Field(min_length=1)] = (
        timedelta(hours=1),
        timedelta(hours=6),
        timedelta(hours=24),
    )
    minimum_rows: Annotated[int, Field(ge=1)] = 200
    false_alarms_per_week: Annotated[float, Field(gt=0)] = 1.0
    privacy: Privacy = Privacy()
    retention: Retention = Retention()

    @property
    def needs_rows(self) -> timedelta:
        """For how long rows are needed: until accuracy was judged, and judged again with late events."""
        return max(self.windows) + self.label_delay + self.retention.minutes

    @property
    def rows_kept(self) -> timedelta:
        """How long rows are kept."""
        return self.retention.rows or max(ROWS_KEPT, self.needs_rows)

    @property
    def importance(self) -> dict[str, float]:
        """The importance of each feature."""
        return {name: f.importance for name, f in self.features.items()}

    @property
    def num_names(self) -> tuple[str, ...]:
        """The numeric features, in the order of their positions."""
        return tuple(name for name, f in self.features.items() if f.kind is Kind.NUMERIC)

    @property
    def cat_names(self) -> tuple[str, ...]:
        """The categorical features, in the order of their positions."""
        return tuple(name for name, f in self.features.items() if f.kind is Kind.CATEGORICAL)


def _at_most_one(env: str | None, file: Path | None) -> None:
    if env is not None and file is not None:
        raise ValueError("names two places for one password; keep the environment variable or the file")


class EngineSpec(_Spec):
    """Tables that are replicated on all hosts of a cluster, in place of plain ones on one server."""

    cluster: Annotated[str, Field(min_length=1)]


class ClickHouseSpec(_Spec):
    """A ClickHouse server, in place of the embedded engine. ``clickhouses://`` speaks TLS."""

    url: ClickHouseUrl
    engine: EngineSpec | None = None
    password_env: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None

    @check_whole(mode="after")
    def _one_password(self) -> Self:
        _at_most_one(self.password_env, self.password_file)
        return self


class StoreSpec(_Spec):
    """Where data lives. The ledger is a relational database; by default a file in the same folder."""

    path: Path = Path("data")
    clickhouse: ClickHouseSpec | None = None
    ledger: str | None = None
    ledger_password_env: str | None = None
    ledger_password_file: Path | None = None

    @check_whole(mode="after")
    def _ledger_that_can_be_used(self) -> Self:
        try:
            parts = urlsplit(self.ledger or "sqlite:")
            port_is_right = parts.port != 0
        except ValueError:
            port_is_right = False
        if not port_is_right:
            raise ValueError("ledger has a port that is none; write a number such as 5432")
        _at_most_one(self.ledger_password_env, self.ledger_password_file)
        if parts.password is not None or any("password" in name for name in parse_qs(parts.query)):
            raise ValueError(
                "ledger must not hold the password; name where it is with ledger_password_file or ledger_password_env"
            )
        if parts.scheme not in LEDGERS:
            raise ValueError(
                f"ledger is no database that Telltale can use; write one such as {' or '.join(LEDGERS.values())}"
            )
        return self

    @property
    def ledger_url(self) -> str:
        """The database URL of the ledger, without a password."""
        return self.ledger or f"sqlite:///{self.path / 'ledger.db'}"


class HttpSource(_Spec):
    """Events by ``POST /v1/events``."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{value[:100]!r} is no address of a broker; write one such as 10.0.0.7:9092")
    return value


class DeadLetterLimits(_Spec):
    """When a topic is taken for broken: too large a share of its lines is refused, or too many are in a row."""

    share: Share = 0.5
    in_a_row: Annotated[int, Field(ge=1)] = 1000


class KafkaSource(_Spec):
    """Events from Kafka topics: one event a message, or many as NDJSON."""

    bootstrap_servers: Annotated[tuple[Annotated[str, AfterValidator(_host_and_port)], ...], Field(min_length=1)]
    topics: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    group: str = "telltale"
    protocol: SecurityProtocol = "PLAINTEXT"
    mechanism: SaslMechanism | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    dead_letters: DeadLetterLimits = DeadLetterLimits()

    @check_whole(mode="after")
    def _credentials_where_they_are_used(self) -> Self:
        _at_most_one(self.password_env, self.password_file)
        named = (self.mechanism, self.username, self.password_env or self.password_file)
        if self.protocol.startswith("SASL"):
            if not all(named):
                raise ValueError(f"{self.protocol} needs mechanism, username, and password_file or password_env")
        elif any(named):
            raise ValueError(
                f"mechanism, username and password are not used with {self.protocol}; use SASL_SSL or SASL_PLAINTEXT"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class Sources(_Spec):
    """Where events come from."""

    http: HttpSource = HttpSource()
    kafka: KafkaSource | None = None


class ServerSpec(_Spec):
    """A serving pod, for the probe."""

    health_url: Annotated[str, AfterValidator(_http_url)]


class ApiKey(_Spec):
    """A key that clients send as ``Authorization: Bearer KEY``. The key itself is never in this file."""

    name: str
    key_env: str | None = None
    key_file: Path | None = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    models: tuple[str, ...] = ()

    @check_whole(mode="after")
    def _one_secret(self) -> Self:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("needs either key_env or key_file")
        return self


def _with_durations(kind: type) -> BeforeValidator:
    """Durations in a section whose type belongs to the alerts room, which knows nothing of this file's notation."""
    names = {f.name for f in dataclasses.fields(kind) if "timedelta" in str(f.type)}

    def parse(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {k: parse_duration(v) if k in names else v for k, v in value.items()}

    return BeforeValidator(parse)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A section whose ``kind`` says which of several types it is."""

    kinds: Mapping[str, type]

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schemas = {name: handler.generate_schema(kind) for name, kind in self.kinds.items()}
        return core_schema.tagged_union_schema(schemas, "kind")


class CommonRetention(_Spec):
    """How long is kept what belongs to no model, by the time of its arrival."""

    dead_letters: Kept = timedelta(days=90)
    health: Kept = timedelta(days=90)


class Rules(_Spec):
    """The models, and the policies that watch them."""

    models: dict[str, ModelSpec] = Field(default_factory=dict)
    policies: tuple[Annotated[Policy, _with_durations(Policy)], ...] = ()

    def problems(self) -> Iterator[str]:
        """Names that point at nothing, and settings that contradict each other."""
        for i, policy in enumerate(self.policies):
            for at, problem in self._policy_problems(policy):
                yield f"policies[{i}].{at}: {problem}"
            if policy.name in [p.name for p in self.policies[:i]]:
                yield f"policies[{i}].name: {policy.name!r} is there twice; alerts are told apart by it"
        for name, spec in self.models.items():
            yield from _model_problems(name, spec)

    def _policy_problems(self, policy: Policy) -> Iterator[tuple[str, str]]:
        for model in policy.models:
            if model not in self.models:
                yield "models", unknown_word(model, "model", self.models)
        for name in policy.models or self.models:
            spec = self.models.get(name)
            if spec and policy.own_length is not None and policy.own_length not in spec.windows:
                wanted = f"no window of {format_duration(policy.own_length)}"
                yield "window", f"model {name!r} has {wanted}; its windows are {_spans(spec.windows)}"


class Config(Rules):
    """The whole file."""

    store: StoreSpec = StoreSpec()
    sources: Sources = Sources()
    adapters: AdapterSettings = AdapterSettings()
    unknown_models: Literal["register", "reject"] = "register"
    servers: dict[str, ServerSpec] = Field(default_factory=dict)
    notifiers: dict[str, Annotated[Notifier, OneOf(kinds_in(alerts.notifiers))]] = Field(default_factory=dict)
    actions: dict[str, Annotated[Rollback, _with_durations(Rollback)]] = Field(default_factory=dict)
    api_keys: tuple[ApiKey, ...] = ()
    retention: CommonRetention = CommonRetention()

    @functools.cached_property
    def intake_revision(self) -> str:
        """A hash of what decides what becomes of an event."""
        kept = {"models": {"__all__": {"retention"}}}
        decides = self.model_dump_json(include={"models", "unknown_models"}, exclude=kept)
        return hashlib.sha256(decides.encode()).hexdigest()[:12]

    def problems(self) -> Iterator[str]:
        """Names that point at nothing, and settings that contradict each other."""
        yield from super().problems()
        for name, action in self.actions.items():
            notifier = self.notifiers.get(action.notifier)
            if notifier is None:
                yield f"actions.{name}.notifier: {unknown_word(action.notifier, 'notifier', self.notifiers)}"
            elif not notifier.carries_out_actions:
                able = [n for n, other in self.notifiers.items() if other.carries_out_actions]
                yield (
                    f"actions.{name}.notifier: {action.notifier!r} is told of alerts and carries nothing out; "
                    f"use {' or '.join(able) or 'a webhook'}"
                )

    def _policy_problems(self, policy: Policy) -> Iterator[tuple[str, str]]:
        yield from super()._policy_problems(policy)
        for notifier in policy.notify:
            if notifier not in self.notifiers:
                yield "notify", unknown_word(notifier, "notifier", self.notifiers)
        if policy.action is not None and policy.action not in self.actions:
            yield "action", unknown_word(policy.action, "action", self.actions)


def _model_problems(name: str, spec: ModelSpec) -> Iterator[str]:
    if not name.strip():
        yield "models: a model has no name; give it the one that its events have"
    for feature in spec.features:
        if feature.startswith("@"):
            yield f"models.{name}.features: {feature!r} begins with the mark of a model's outputs; rename it"
    for problem in _privacy_problems(spec.privacy):
        yield f"models.{name}.privacy{problem}"
    for problem in _retention_problems(spec):
        yield f"models.{name}.retention{problem}"


def _retention_problems(spec: ModelSpec) -> Iterator[str]:
    longest, kept = format_duration(max(spec.windows)), spec.retention
    if spec.rows_kept < spec.needs_rows:
        yield (
            f".rows: {format_duration(spec.rows_kept)} is too short: the longest window ({longest}), label_delay "
            f"({format_duration(spec.label_delay)}) and retention.minutes ({format_duration(kept.minutes)}) need "
            f"{format_duration(spec.needs_rows)}"
        )
    needed = max(spec.windows) + kept.minutes
    if kept.hours < needed:
        yield (
            f".hours: {format_duration(kept.hours)} is too short: the longest window ({longest}) and retention.minutes "
            f"({format_duration(kept.minutes)}) need {format_duration(needed)}"
        )


def _privacy_problems(privacy: Privacy) -> Iterator[str]:
    named = {*privacy.drop, *privacy.hash}
    for field in sorted(named & KEY_FIELDS - {"prediction_id"}):
        yield f": {field!r} is needed to place an event; it cannot be dropped or hashed"
    for field in sorted(named & READ_FIELDS):
        yield f": {field!r} is a field that Telltale reads itself; it cannot be dropped or hashed"
    if "prediction_id" in privacy.drop:
        yield ".drop: without prediction_id labels cannot join; hash it instead"


def _spans(windows: tuple[timedelta, ...]) -> str:
    return ", ".join(format_duration(w) for w in windows)


def unknown_word(word: str, what: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """That a word is not one of those that are known, and which are."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    article = "an" if what[0] in "aeiou" else "a"
    return f"{word!r} is not {article} {what}; {hint}" + (
        f"known: {', '.join(names)}" if names else f"no {what} is declared"
    )
