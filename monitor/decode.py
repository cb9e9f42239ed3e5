"""Bytes to events: every line is either accepted or rejected with a reason, and none disturbs its neighbours.

What is decided here depends on the bytes and on the time of arrival, never on the clock, so that taking the same
bytes in again decides the same.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from monitor.events import FUTURE_LIMIT_SECONDS, MAX_EVENT_BYTES

LATEST_TIMESTAMP = 10_413_792_000.0  # 2300-01-01, what the store's time type can hold
EARLIEST_TIMESTAMP = -2_208_988_800.0  # 1900-01-01
LEAST_FRACTION = 1e-6
"""A row that stood for more than a million others would drown everything else."""
LARGEST_EXACT = 2.0**53
"""Above it a decimal fraction no longer tells one number from the next, so it is no key."""
ACTIONS = frozenset({"deploy", "promote", "retire", "rollback"})
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that could not be taken in, or so many ``rows`` of a table.

    ``reason`` is one of a few words, ``detail`` a sentence.
    """

    row: int
    reason: str
    detail: str
    raw: bytes
    rows: int = 1


@dataclass(slots=True)
class Decoded:
    """The events of one batch, by kind. Each has its line as ``row`` and its time as ``at`` (epoch seconds)."""

    predictions: dict[tuple[str, str], list[Fields]] = field(default_factory=lambda: defaultdict(list))
    labels: list[Fields] = field(default_factory=list)
    releases: list[Fields] = field(default_factory=list)
    health: list[Fields] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    accepted: int = 0


class _Refused(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def split_lines(body: bytes) -> list[bytes]:
    """The lines of NDJSON; an array becomes its elements, one object (however it is laid out) one line.

    >>> split_lines(b'[{"a": 1}, {"a": 2}]')
    [b'{"a":1}', b'{"a":2}']
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    start = body[:64].lstrip()
    if start.startswith(b"["):
        elements = _whole(body)
        if isinstance(elements, list):
            return [_dump(e) for e in elements]
    if start.startswith(b"{") and b"\n" in body:
        first = body.lstrip().split(b"\n", 1)[0]
        if not first.rstrip().endswith(b"}") and _whole(body) is not None:
            return [body.replace(b"\n", b" ")]
    return body.split(b"\n")


def decode(
    lines: Iterable[bytes],
    arrived: float | Sequence[float],
    known: Callable[[str], bool] | None = None,
    allowed: frozenset[str] = frozenset(),
) -> Decoded:
    """The events in some lines. Empty lines are passed over but counted, so that ``row`` is the line's number.

    arrived
        Epoch seconds of the batch's first arrival, or of each line's.
    known
        Says whether a model is declared; given where unknown models are refused.
    allowed
        The models that the sender may write to; empty for all.
    """
    out = Decoded()
    arrivals = arrived if isinstance(arrived, Sequence) else itertools.repeat(arrived)
    for row, (raw, at) in enumerate(zip(lines, arrivals, strict=False)):
        if not raw or raw.isspace():
            continue
        try:
            event = _event(raw, at, known)
            event["row"] = row
            _KINDS[event["type"]](event)
            if allowed and event["model"] not in allowed:
                raise _Refused("forbidden_model", f"the key is not for model {event['model'][:60]!r}")
            _place(event, out)
            out.accepted += 1
        except _Refused as refusal:
            out.rejects.append(Reject(row, refusal.reason, refusal.detail, raw))
    return out


def epoch_seconds(value: object) -> float | None:
    """A timestamp of the contract in epoch seconds, or None where it is not one.

    >>> epoch_seconds("2026-01-01T00:00:00Z"), epoch_seconds(12), epoch_seconds("2026-01-01T00:00:00")
    (1767225600.0, 12.0, None)
    """
    kind = type(value)
    if kind is str:
        try:
            at = datetime.fromisoformat(value)  # type: ignore[arg-type]  # the type was looked at above
        except ValueError:
            return None
        if at.tzinfo is None:
            return None
        seconds = at.timestamp()
    elif kind is float or kind is int:
        try:
            seconds = float(value)  # type: ignore[arg-type]  # the type was looked at above
        except OverflowError:
            return None
    else:
        return None
    return seconds if EARLIEST_TIMESTAMP <= seconds <= LATEST_TIMESTAMP else None


def label_text(value: object) -> str | None:
    """A label or class as text, so that 1, 1.0 and true compare equal. None where it is no finite scalar.

    >>> label_text(1.0), label_text(True), label_text("cat"), label_text(0.5), label_text([1])
    ('1', '1', 'cat', '0.5', None)
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[return-value]  # the type was looked at above
    if kind is bool:
        return "1" if value else "0"
    if kind is int:
        return str(value)
    if kind is float and math.isfinite(value):  # type: ignore[arg-type]  # the type was looked at above
        return str(int(value)) if value.is_integer() else repr(value)  # type: ignore[attr-defined, call-overload]  # the type was looked at above
    return None


def json_text(value: object) -> str:
    """Any JSON value as compact text, for the extras."""
    return _dump(value).decode("utf-8", "replace")


def _dump(value: object) -> bytes:
    """Any JSON value, NaN and Infinity as such: they are evidence, not null."""
    if type(value) is float and not math.isfinite(value):
        return json.dumps(value).encode()
    try:
        plain = orjson.dumps(value)
        if type(value) not in (dict, list) or b"null" not in plain:
            return plain
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
    except RecursionError:
        return b'["nested too deeply to keep"]'


def _whole(body: bytes) -> object:
    """A body as one JSON value, None where it is not one. Half characters are left for the line they are in."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _parse(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:  # bare NaN and Infinity, which many producers write
        text = raw.decode("utf-8")
        value = json.loads(text)
        text_of_all = json.dumps(value, ensure_ascii=False)
        text_of_all.encode("utf-8")
    except UnicodeDecodeError:
        raise _Refused("not_utf8", "the line is not UTF-8") from None
    except UnicodeEncodeError:
        raise _Refused("not_utf8", "the line holds half a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise _Refused("not_json", f"the line is not JSON: {str(error)[:100]}") from None
    return value


def _event(raw: bytes, arrived: float, known: Callable[[str], bool] | None) -> Fields:
    if len(raw) > MAX_EVENT_BYTES:
        raise _Refused("too_large", f"the event has {len(raw)} bytes; {MAX_EVENT_BYTES} are allowed")
    event = _parse(raw)
    if type(event) is not dict:
        raise _Refused("not_an_object", "the line is JSON but no object")
    kind = event.get("type")
    if type(kind) is not str or kind not in _KINDS:
        raise _Refused("unknown_type", f"type is {json_text(kind)[:60]}; use prediction, label, release or health")
    at = epoch_seconds(event.get("timestamp"))
    if at is None:
        shown = json_text(event.get("timestamp"))[:60]
        reason = "missing_key" if event.get("timestamp") in (None, "") else "bad_timestamp"
        raise _Refused(reason, f"timestamp is {shown}; use RFC 3339 with an offset, or epoch seconds")
    if at > arrived + FUTURE_LIMIT_SECONDS:
        raise _Refused(
            "in_the_future", f"timestamp is {at - arrived:.0f} s ahead of its arrival; at most 300 s are allowed"
        )
    event["at"] = at
    environment = event.get("environment", "production")
    if type(environment) is not str or not environment:
        raise _Refused("bad_field", "environment is not a text")
    event["environment"] = environment
    if known is not None and kind != "health" and not known(str(event.get("model"))):
        raise _Refused("unknown_model", f"model {json_text(event.get('model'))[:60]} is not declared")
    return event


def _key(event: Fields, name: str) -> None:
    value = event.get(name)
    kind = type(value)
    if kind is int or (kind is float and abs(value) < LARGEST_EXACT):  # type: ignore[arg-type]  # the type was looked at above
        event[name] = label_text(value)
    elif kind is not str:
        if value is None:
            raise _Refused("missing_key", f"{name} is missing")
        raise _Refused("bad_field", f"{name} is {json_text(value)[:60]}; it should be a text")
    elif not value:
        raise _Refused("missing_key", f"{name} is empty")


def _text(event: Fields, name: str) -> None:
    value = event.get(name)
    event[name] = "" if value is None else value if type(value) is str else json_text(value)


def _one_of(event: Fields, name: str, allowed: frozenset[str], default: str | None = None) -> None:
    value = event.get(name, default)
    if type(value) is not str or value not in allowed:
        raise _Refused("bad_field", f"{name} is {json_text(value)[:60]}; use {' or '.join(sorted(allowed))}")
    event[name] = value


_STATUS = frozenset({"ok", "error"})
_ROLE = frozenset({"live", "shadow"})


def _prediction(event: Fields) -> None:
    for name in ("model", "version", "server", "prediction_id"):
        _key(event, name)
    features = event.get("features")
    if features is None:
        event["features"] = {}
    elif type(features) is not dict:
        raise _Refused("bad_field", "features is not an object")
    if "status" in event:
        _one_of(event, "status", _STATUS)
    if "role" in event:
        _one_of(event, "role", _ROLE)
    fraction = event.get("sampling_fraction")
    if fraction is not None and not (type(fraction) in (int, float) and LEAST_FRACTION <= fraction <= 1):
        shown = json_text(fraction)[:60]
        raise _Refused(
            "bad_field", f"sampling_fraction is {shown}; it should be at least {LEAST_FRACTION:g}, at most 1"
        )
    segments = event.get("segments")
    if segments is not None and type(segments) is not dict:
        raise _Refused("bad_field", "segments is not an object")
    for name in ("error", "entity_id", "batch_id", "trace_id"):
        if name in event:
            _text(event, name)


def _label(event: Fields) -> None:
    _key(event, "model")
    _key(event, "prediction_id")
    if "label" not in event:
        raise _Refused("missing_key", "label is missing; null would take an earlier label back")
    label = event["label"]
    event["text"] = "" if label is None else label_text(label)
    if event["text"] is None:
        raise _Refused("bad_field", f"label is {json_text(label)[:60]}; it should be a number, a text or a boolean")
    event["outcomes"] = _numbers(event, "outcomes")


def _release(event: Fields) -> None:
    _key(event, "model")
    _key(event, "version")
    _one_of(event, "action", ACTIONS)
    servers = [] if event.get("servers") is None else event["servers"]
    if type(servers) is not list or not all(type(s) is str for s in servers):
        raise _Refused("bad_field", "servers is not a list of texts")
    event["servers"] = servers
    for name in ("by", "reason", "artifact_digest"):
        _text(event, name)


def _health(event: Fields) -> None:
    _key(event, "server")
    if type(event.get("ok")) is not bool:
        raise _Refused("bad_field", "ok is not true or false")
    latency = event.get("latency_ms")
    if type(latency) not in (int, float):
        raise _Refused("bad_field", "latency_ms is not a number")
    for name in ("model", "version"):
        if event.get(name) is None:
            event[name] = ""
        else:
            _key(event, name)
    code = event.get("status_code")
    if code is not None and not (type(code) is int and 0 <= code < 65536):
        raise _Refused("bad_field", "status_code is not a number of three digits")
    _text(event, "error")
    event["resources"] = _numbers(event, "resources")


def _numbers(event: Fields, name: str) -> Mapping[str, float]:
    values = {} if event.get(name) is None else event[name]
    if type(values) is not dict or not all(type(v) in (int, float) for v in values.values()):
        raise _Refused("bad_field", f"{name} is not an object of numbers")
    try:
        return {k: float(v) for k, v in values.items()}
    except OverflowError:
        raise _Refused("bad_field", f"{name} holds a number that is too large") from None


_KINDS: Mapping[str, Callable[[Fields], None]] = {
    "prediction": _prediction,
    "label": _label,
    "release": _release,
    "health": _health,
}


def _place(event: Fields, out: Decoded) -> None:
    match event["type"]:
        case "prediction":
            out.predictions[event["environment"], event["model"]].append(event)
        case "label":
            out.labels.append(event)
        case "release":
            out.releases.append(event)
        case _:
            out.health.append(event)
