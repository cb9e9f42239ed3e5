"""``telltale.yaml``: what it may hold, and errors a person can act on.

Unknown keys and names are refused with the path in the file, the problem, and the words that would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import model_validator as check_whole

from alerts.actions.rollback import Rollback
from alerts.notifiers.webhook import Webhook
from alerts.policy import Policy
from detectors.layout import Kind

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
FEATURE_KINDS = ("numeric", "categorical")
KEY_FIELDS = {"type", "environment", "model", "version", "server", "prediction_id", "timestamp", "prediction", "label"}
READ_FIELDS = {"at", "row", "features", "segments", "sampling_fraction", "status", "role", "latency_ms", "text"}
LONGEST_WINDOW = timedelta(days=366)
LONGEST_DELAY = timedelta(days=3660)
Task = Literal["classification", "regression"]
Monitor = Literal["drift", "servers", "versions", "accuracy", "latency", "errors"]
Scope = Literal["ingest", "read", "admin"]


class ConfigError(Exception):
    """The configuration is wrong. Each line: the path in the file, the problem, what would be right."""


def parse_duration(value: object) -> object:
    """A duration as people write it.

    >>> parse_duration("90s") == timedelta(seconds=90), parse_duration("1.5h") == timedelta(minutes=90)
    (True, True)
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", value)
    if not match:
        raise ValueError(f"{value!r} is not a duration; write a number and s, m, h, d or w, such as 90s, 6h or 2d")
    try:
        return timedelta(seconds=float(match[1]) * UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"{value[:30]!r} is too long a duration") from None


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


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"{value[:100]!r} is not a URL; write one such as http://10.0.0.11:8080/health")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
WindowLength = Annotated[Duration, AfterValidator(_whole_minutes)]
Time = Annotated[datetime, AfterValidator(_utc)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureSpec(_Spec):
    """One declared feature. Levels are the values a categorical one may take, in the order to show them."""

    kind: Kind = Kind.NUMERIC
    levels: tuple[str, ...] = ()


def _feature(value: object) -> object:
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, dict) and value.get("kind", "numeric") not in FEATURE_KINDS:
        raise ValueError(f"{value['kind']!r} is not a kind of feature; use numeric or categorical")
    return value


class Sampling(_Spec):
    """How many rows are kept, of each kind. Profiles always count everything."""

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
    owner: str = ""
    routing: Literal["unknown", "random"] = "unknown"
    monitors: tuple[Monitor, ...] = get_args(Monitor)
    windows: Annotated[tuple[WindowLength, ...], Field(min_length=1)] = (
        timedelta(hours=1),
        timedelta(hours=6),
        timedelta(hours=24),
    )
    minimum_rows: Annotated[int, Field(ge=1)] = 200
    false_alarms_per_week: Annotated[float, Field(gt=0)] = 1.0
    privacy: Privacy = Privacy()

    @property
    def num_names(self) -> tuple[str, ...]:
        """The numeric features, in the order of their positions."""
        return tuple(name for name, f in self.features.items() if f.kind is Kind.NUMERIC)

    @property
    def cat_names(self) -> tuple[str, ...]:
        """The categorical features, in the order of their positions."""
        return tuple(name for name, f in self.features.items() if f.kind is Kind.CATEGORICAL)


class StoreSpec(_Spec):
    """Where data lives. The ledger is a relational database; by default a file in the same folder."""

    path: Path = Path("data")
    ledger: str | None = None

    @property
    def ledger_url(self) -> str:
        """The database URL of the ledger."""
        return self.ledger or f"sqlite:///{self.path / 'ledger.db'}"


class HttpSource(_Spec):
    """Events by ``POST /v1/events``."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024


class Sources(_Spec):
    """Where events come from."""

    http: HttpSource = HttpSource()


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


class Config(_Spec):
    """The whole file."""

    store: StoreSpec = StoreSpec()
    sources: Sources = Sources()
    unknown_models: Literal["register", "reject"] = "register"
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    servers: dict[str, ServerSpec] = Field(default_factory=dict)
    policies: tuple[Annotated[Policy, _with_durations(Policy)], ...] = ()
    notifiers: dict[str, Annotated[Webhook, _with_durations(Webhook)]] = Field(default_factory=dict)
    actions: dict[str, Annotated[Rollback, _with_durations(Rollback)]] = Field(default_factory=dict)
    api_keys: tuple[ApiKey, ...] = ()

    def problems(self) -> Iterator[str]:
        """Names that point at nothing, and settings that contradict each other."""
        for i, policy in enumerate(self.policies):
            for at, problem in self._policy_problems(policy):
                yield f"policies[{i}].{at}: {problem}"
            if policy.name in [p.name for p in self.policies[:i]]:
                yield f"policies[{i}].name: {policy.name!r} is there twice; alerts are told apart by it"
        for name, action in self.actions.items():
            if action.notifier not in self.notifiers:
                yield f"actions.{name}.notifier: {_unknown(action.notifier, 'notifier', self.notifiers)}"
        for name, spec in self.models.items():
            yield from _model_problems(name, spec)

    def _policy_problems(self, policy: Policy) -> Iterator[tuple[str, str]]:
        for model in policy.models:
            if model not in self.models:
                yield "models", _unknown(model, "model", self.models)
        for notifier in policy.notify:
            if notifier not in self.notifiers:
                yield "notify", _unknown(notifier, "notifier", self.notifiers)
        if policy.action is not None and policy.action not in self.actions:
            yield "action", _unknown(policy.action, "action", self.actions)
        for name in policy.models or self.models:
            spec = self.models.get(name)
            if spec and policy.window is not None and policy.window not in spec.windows:
                yield "window", f"model {name!r} has no such window; its windows are {_spans(spec.windows)}"


def _model_problems(name: str, spec: ModelSpec) -> Iterator[str]:
    if not name.strip():
        yield "models: a model has no name; give it the one that its events have"
    for feature in spec.features:
        if feature.startswith("@"):
            yield f"models.{name}.features: {feature!r} begins with the mark of a model's outputs; rename it"
    for problem in _privacy_problems(spec.privacy):
        yield f"models.{name}.privacy{problem}"


def _privacy_problems(privacy: Privacy) -> Iterator[str]:
    named = {*privacy.drop, *privacy.hash}
    for field in sorted(named & KEY_FIELDS - {"prediction_id"}):
        yield f": {field!r} is needed to place an event; it cannot be dropped or hashed"
    for field in sorted(named & READ_FIELDS):
        yield f": {field!r} is a field that Telltale reads itself; it cannot be dropped or hashed"
    if "prediction_id" in privacy.drop:
        yield ".drop: without prediction_id labels cannot join; hash it instead"


def load(path: Path) -> Config:
    """The configuration in a YAML file; paths in it are taken relative to its folder.

    Raises ConfigError with one line a problem.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; --config names another file") from None
    return loads(text, path)


def loads(text: str, path: Path) -> Config:
    """Like ``load``, of a text that stands for the file at ``path``."""
    try:
        raw = yaml.load(text, _Loader) or {}  # noqa: S506 - a safe loader that refuses keys that are there twice
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]} {_mark(error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}; write sections such as store, models and policies")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [f"{path}: {_line(e)}" for e in _innermost(error.errors(include_url=False))]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    problems = [f"{path}: {problem}" for problem in config.problems()]
    if problems:
        raise ConfigError("\n".join(problems))
    return _resolved(config, path.parent)


def read_secret(env: str | None, file: Path | None) -> str:
    """A secret from the environment or a file. Raises ConfigError that names the place and never the secret."""
    if env is not None:
        value = os.environ.get(env, "")
        if not value:
            raise ConfigError(f"the environment variable {env} is not set; it should hold a secret")
        return value
    if file is None:
        raise ConfigError("a secret needs an environment variable or a file")
    try:
        value = file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file}: the secret cannot be read: {error.strerror}") from None
    if not value:
        raise ConfigError(f"{file}: the secret is empty")
    return value


def missing_secrets(config: Config) -> Iterator[str]:
    """The secrets that the configuration names and that are not there: where, and what is wrong."""
    places = {
        **{f"notifiers.{k}": (n.secret_env, n.secret_file) for k, n in config.notifiers.items()},
        **{f"api_keys[{i}]": (k.key_env, k.key_file) for i, k in enumerate(config.api_keys)},
        **{
            f"models.{k}.privacy": (m.privacy.hash_key_env, m.privacy.hash_key_file)
            for k, m in config.models.items()
            if m.privacy.hash
        },
    }
    for place, (env, file) in places.items():
        try:
            read_secret(env, Path(file) if file is not None else None)
        except ConfigError as error:
            yield f"{place}: {error}"


def _resolved(config: Config, folder: Path) -> Config:
    def under(path: Path | None) -> Path | None:
        return folder / path if path is not None else None

    models = {}
    for name, spec in config.models.items():
        reference = spec.reference
        if reference is not None and reference.file is not None:
            reference = reference.model_copy(update={"file": under(reference.file)})
        models[name] = spec.model_copy(
            update={
                "reference": reference,
                "privacy": spec.privacy.model_copy(update={"hash_key_file": under(spec.privacy.hash_key_file)}),
            }
        )
    notifiers = {
        name: dataclasses.replace(n, secret_file=str(under(Path(n.secret_file)))) if n.secret_file else n
        for name, n in config.notifiers.items()
    }
    keys = tuple(k.model_copy(update={"key_file": under(k.key_file)}) for k in config.api_keys)
    store = config.store.model_copy(update={"path": folder / config.store.path})
    return config.model_copy(update={"store": store, "models": models, "notifiers": notifiers, "api_keys": keys})


class _Loader(yaml.SafeLoader):
    """Refuses keys that are there twice, of which only the last would count."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, before any other is merged into it."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            named = isinstance(key, yaml.ScalarNode)
            if named and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value if named else id(key))
        return node


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"(line {mark.line + 1}, column {mark.column + 1})" if mark else ""


def _spans(windows: tuple[timedelta, ...]) -> str:
    return ", ".join(format_duration(w) for w in windows)


def format_duration(value: timedelta) -> str:
    """A duration as ``parse_duration`` reads it.

    >>> format_duration(timedelta(hours=6)), format_duration(timedelta(seconds=90))
    ('6h', '90s')
    """
    seconds = value.total_seconds()
    unit = next((u for u in ("w", "d", "h", "m") if seconds and seconds % UNITS[u] == 0), "s")
    return f"{seconds / UNITS[unit]:g}{unit}"


def _unknown(word: str, what: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    article = "an" if what[0] in "aeiou" else "a"
    return f"{word!r} is not {article} {what}; {hint}" + (
        f"known: {', '.join(names)}" if names else f"no {what} is declared"
    )


def _innermost(errors: Sequence[Any]) -> list[Any]:
    """Errors without those that only follow from an error further inside."""
    places = [e["loc"] for e in errors]
    return [e for e in errors if not any(len(p) > len(e["loc"]) and p[: len(e["loc"])] == e["loc"] for p in places)]


def _line(error: Any) -> str:
    location = tuple(part for part in error["loc"] if not _is_type_name(part))
    at = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = _known_keys(location[:-1])
            parent = at.rpartition(".")[0] or "the file"
            return f"{at}: {_unknown(str(location[-1]), f'key of {parent}', known)}"
        case "literal_error":
            return f"{at}: {error['input']!r} is not known; use {error['ctx']['expected']}"
        case "missing" | "missing_argument":
            return f"{at}: is missing; add it"
        case "value_error":
            return f"{at}: {error['ctx']['error']}"
        case _:
            shown = repr(error["input"])[:60]
            return f"{at}: {shown} does not fit: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _is_type_name(part: object) -> bool:
    return isinstance(part, str) and (part.startswith("function-") or part in {"Webhook", "Rollback", "Policy"})


def _known_keys(location: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that are right at a place in the file, found by walking the types."""
    kind: Any = Config
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = next((a for a in reversed(get_args(kind)) if a is not Ellipsis and a is not str), kind)
        while get_origin(kind) in (Annotated, Union, UnionType):
            kind = next(a for a in get_args(kind) if a is not NoneType)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        return tuple(f.name for f in dataclasses.fields(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return tuple(kind.model_fields)
    return ()
