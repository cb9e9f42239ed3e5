"""What KServe's inference logger sends: a CloudEvent for a request, and one for its response where that was a success.

Both carry the same id and are joined by it. Nothing says that a request failed, except that no response follows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from monitor.adapters import (
    Adapter,
    AdapterSettings,
    FullError,
    RefusedError,
    Sender,
    Translated,
    known,
    read_json,
)
from monitor.adapters.open_inference import Row, add_columns, answer, answer_rows, columns, feature_rows, flat, paired
from monitor.decode import epoch_seconds

HALVES: Mapping[str, Literal["request", "response"]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}
NEEDED = ("id", "source", "type", "time", "inferenceservicename")
PLACE = ("source", "namespace", "inferenceservicename", "component", "endpoint", "id")
"""What tells one exchange from another: ids may be the clients' own, and a source is often just localhost."""
KEPT = frozenset({*NEEDED, *PLACE, "annotations", "metadata", "recordedtime"})
"""Attributes that anything is made of. Others, which anybody may send, are not held in memory."""
STRUCTURED = "application/cloudevents+json"
MOST_REMEMBERED = 100_000
"""So many exchanges that are done with are remembered, so that a half that comes again is not taken for a new one."""
HALF_BYTES = 400
"""What a waiting half takes in memory beside its body and its attributes, about."""


@dataclass(frozen=True)
class Half:
    """A request or a response."""

    attributes: Mapping[str, str]
    body: bytes = field(repr=False)
    at: float


@dataclass
class Exchange:
    """A request and its response, or what there is of them.

    since
        When the first half came.
    closed
        It is being counted as it is, so that nothing may be added.
    """

    identity: str
    sender: Sender
    since: float
    request: Half | None = None
    response: Half | None = None
    closed: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """Which halves are there."""
        return tuple(side for side in ("request", "response") if getattr(self, side) is not None)


class Kserve(Adapter):
    """Joins requests and responses. Safe to call from several threads.

    What waits for its other half is in memory only.
    """

    def __init__(self, settings: AdapterSettings) -> None:
        self._settings = settings
        self._limits = settings.kserve
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Exchange] = OrderedDict()
        self._bytes = 0
        self._done: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def translate(self, body: bytes, headers: Mapping[str, str], sender: Sender, now: float) -> Translated:
        """One CloudEvent, binary or structured. The second half of an exchange makes it complete."""
        try:
            return self._placed(_half(body, headers), sender, now)
        except RefusedError as refusal:
            refused = Translated(sender)
            refused.refuse(0, refusal, body)
            return refused

    def _placed(self, half: Half, sender: Sender, now: float) -> Translated:
        side = HALVES[half.attributes["type"]]
        place = [sender.caller, sender.environment, *(half.attributes.get(name, "") for name in PLACE)]
        identity = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]
        with self._lock:
            exchange = self._open.get(identity)
            seen = self._done.get(identity) or (exchange.sides if exchange and exchange.closed else None)
            if seen and side not in seen:
                raise RefusedError("late", f"the {side} came after the {seen[0]} had been taken in without it")
            if identity in self._done:
                return Translated(sender, identity)  # sent again
            exchange = exchange or Exchange(identity, sender, now)
            self._keep(exchange, half, side)
        if exchange.request and exchange.response:
            return self._complete(exchange)
        return Translated(sender, identity, waiting=True)

    def overdue(self, now: float) -> Iterator[Translated]:
        """Exchanges that are as complete as they will be: a lone request is counted, a lone response is refused."""
        limit = now - self._limits.join_within.total_seconds()
        with self._lock:
            late = [exchange for exchange in self._open.values() if exchange.since <= limit]
            for exchange in late:
                exchange.closed = True
        for exchange in late:
            yield self._complete(exchange)

    def settled(self, translated: Translated) -> None:
        """Forget the bodies of an exchange, and remember that it is done with."""
        with self._lock:
            exchange = self._open.pop(translated.identity, None)
            if exchange is None:
                return
            self._bytes -= sum(_size(half) for half in (exchange.request, exchange.response) if half)
            self._done[translated.identity] = exchange.sides
            if len(self._done) > MOST_REMEMBERED:
                self._done.popitem(last=False)

    def waiting(self) -> int:
        """How many requests and responses wait for each other."""
        with self._lock:
            return sum(len(exchange.sides) == 1 for exchange in self._open.values())

    def _keep(self, exchange: Exchange, half: Half, side: str) -> None:
        if getattr(exchange, side) is not None:
            return  # sent again
        most, most_bytes = self._limits.most_waiting, self._limits.most_waiting_bytes
        if side == "response" and exchange.request is not None:  # it makes room, as soon as the store has taken it
            most, most_bytes = most + 1, 2 * most_bytes
        if len(self._open) >= most or self._bytes + _size(half) > most_bytes:
            raise FullError(f"{len(self._open)} events wait for their other half; send it again later")
        setattr(exchange, side, half)
        self._bytes += _size(half)
        self._open[exchange.identity] = exchange

    def _complete(self, exchange: Exchange) -> Translated:
        translated = Translated(exchange.sender, exchange.identity)
        if len(exchange.sides) == 1:
            (translated.alone,) = exchange.sides
        bodies = [half.body for half in (exchange.request, exchange.response) if half]
        translated.add(0, self._events(exchange), b"\n".join(bodies))
        return translated

    def _events(self, exchange: Exchange) -> Iterator[Row]:
        sender, request, response = exchange.sender, exchange.request, exchange.response
        if request is None:
            raise RefusedError("no_request", "a response whose request did not come in time, or was lost in a restart")
        attributes = request.attributes
        model = sender.model or attributes["inferenceservicename"]
        asked = _object(request.body, "the request")
        answered = _object(response.body, "the response") if response else {}
        common = {
            "type": "prediction",
            "environment": sender.environment or None,
            "model": model,
            "version": self._version(sender, attributes, answered),
            "server": sender.server or _server(attributes),
            "timestamp": request.at,
        }
        features = _features(asked, self._settings.feature_names.get(model, ()))
        if response is None:
            yield from paired(common | self._unanswered(), attributes["id"], features, [None] * len(features))
            return
        if "recordedtime" in attributes and response.at >= request.at:  # else the times are those of sending
            common["latency_ms"] = round((response.at - request.at) * 1000, 3)
        answers = _answers(answered, self._settings.class_names.get(model, ()))
        yield from paired(common, attributes["id"], features, answers)

    def _unanswered(self) -> Row:
        if self._limits.unanswered == "ok":
            return {}
        waited = self._limits.join_within.total_seconds()
        return {"status": "error", "error": f"no response was logged within {waited:g} s"}

    def _version(self, sender: Sender, attributes: Mapping[str, str], response: Row) -> object:
        named = self._limits
        version = (
            sender.version
            or _entry(attributes.get("annotations"), named.version_annotation)
            or _entry(attributes.get("metadata"), named.version_header)
            or response.get("model_version")
        )
        where = "add ?version= to the logger's URL, or set adapters.kserve.version_annotation or version_header"
        return known(version, "version", where)


def _half(body: bytes, headers: Mapping[str, str]) -> Half:
    if headers.get("content-type", "").partition(";")[0].strip().lower() == STRUCTURED:
        attributes, body = _structured(body)
    else:
        attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    missing = [name for name in NEEDED if not attributes.get(name)]
    if missing:
        raise RefusedError("missing_key", f"the CloudEvent lacks {', '.join(missing)}; is this KServe's logger?")
    if attributes["type"] not in HALVES:
        raise RefusedError("unknown_type", f"type is {attributes['type'][:60]!r}; use {' or '.join(HALVES)}")
    at = epoch_seconds(attributes["time"])
    if at is None:
        raise RefusedError("bad_timestamp", f"time is {attributes['time'][:60]!r}; use RFC 3339 with an offset")
    return Half({name: value for name, value in attributes.items() if name in KEPT}, body, at)


def _structured(body: bytes) -> tuple[dict[str, str], bytes]:
    """A CloudEvent that is all JSON, as its attributes and its data."""
    event = _object(body, "the CloudEvent")
    attributes = {name: value for name, value in event.items() if isinstance(value, str)}
    try:
        if "data_base64" in event:
            return attributes, base64.b64decode(str(event["data_base64"]), validate=True)
        return attributes, json.dumps(event.get("data")).encode()
    except (binascii.Error, ValueError):
        raise RefusedError("bad_field", "data_base64 is not base64") from None
    except RecursionError:
        raise RefusedError("bad_field", "data is nested too deeply") from None


def _size(half: Half) -> int:
    return len(half.body) + sum(map(sys.getsizeof, half.attributes.values())) + HALF_BYTES


def _object(raw: bytes, what: str) -> Row:
    value = read_json(raw, what)
    if not isinstance(value, dict):
        raise RefusedError("not_an_object", f"{what} is JSON but no object")
    return value


def _server(attributes: Mapping[str, str]) -> str:
    """The pod where the source names it, else the part of the InferenceService that served."""
    source = attributes["source"]
    if "/" not in source:
        return source
    parts = (attributes.get(name) for name in ("inferenceservicename", "component", "endpoint"))
    return "-".join(part for part in parts if part)


def _entry(text: str | None, name: str) -> object:
    """The value of a name in a JSON object of annotations or headers; of a header's several values the first."""
    if not text or not name:
        return None
    values = _object(text.encode("utf-8", "replace"), "annotations or metadata")
    found = next((value for key, value in values.items() if key.lower() == name.lower()), None)
    return found[0] if isinstance(found, list) and found else found


def _features(request: Row, names: tuple[str, ...]) -> list[Row]:
    if "instances" not in request:
        return feature_rows(request, names)
    instances = request["instances"]
    if not isinstance(instances, list) or not instances:
        raise RefusedError("bad_shape", "instances is no list of rows")
    return [_instance(row, names) for row in instances]


def _instance(row: Any, names: tuple[str, ...]) -> Row:
    if not isinstance(row, dict):
        return columns("feature", flat(row), names)
    named: Row = {}
    for name, value in row.items():
        add_columns(named, name, flat(value))
    return named


def _answers(response: Row, classes: tuple[str, ...]) -> list[Any]:
    if "predictions" not in response:
        return answer_rows(response, classes)
    predictions = response["predictions"]
    if not isinstance(predictions, list):
        raise RefusedError("bad_shape", "predictions is no list of rows")
    named = [row if isinstance(row, dict) else {"prediction": row} for row in predictions]
    return [answer({name: flat(value) for name, value in row.items()}, classes) for row in named]
