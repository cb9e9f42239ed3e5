"""The logger: what a pod calls."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, final

from telltale_client.batches import Transport
from telltale_client.encoding import described, feature_values, id_text
from telltale_client.over_http import HttpTransport
from telltale_client.sampling import kept
from telltale_client.shipping import EXIT_SECONDS, Shipper, Stats
from telltale_client.spill import Spill

LEAST_FRACTION = 1e-6
Value = TypeVar("Value")
log = logging.getLogger("telltale_client")


class Logger:
    """Logs what one version of a model answers on this server.

    model, version
        Who answers.
    server
        The pod's name; else what ``POD_NAME`` or ``HOSTNAME`` says, else the machine's name.
    url
        Where Telltale is, such as ``http://telltale:8300``; else ``TELLTALE_URL``. Without either nothing is sent.
    key, key_file
        The API key with the scope ``ingest``, or a file with it; else ``TELLTALE_KEY`` or ``TELLTALE_KEY_FILE``.
    transport
        Used in place of HTTP, such as ``telltale_client.kafka.KafkaTransport``. One of your own that has a
        ``destination``, a text, gets only those spilled batches that were on the way there.
    environment
        Part of every key in Telltale; else ``TELLTALE_ENVIRONMENT``, else Telltale's default, ``production``.
    role
        ``shadow`` for a version whose answers nobody is given.
    sampling
        The share of predictions that are sent, chosen by a hash of their ids; also for the labels logged here.
    capacity
        How many events may wait in memory. What comes when it is full is dropped and counted.
    spill, spill_bytes
        A folder for batches that could not be sent, and how many bytes it may hold; for events without a folder there
        is only memory. Loggers may share it: each sends what one of the same model and destination left there.

    Raises ValueError for a setting that cannot be meant. After that nothing raises and nothing waits, but for ``flush``
    and ``close``, which take as long as they are told.

    >>> Logger("loans", "2", server="pod-4", url="http://telltale:8300", key="secret")
    Logger(model='loans', version='2', server='pod-4', transport=HttpTransport('http://telltale:8300'))
    """

    def __init__(
        self,
        model: str,
        version: str,
        *,
        server: str | None = None,
        url: str | None = None,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        transport: Transport | None = None,
        environment: str | None = None,
        role: str = "live",
        sampling: float = 1.0,
        capacity: int = 10_000,
        spill: str | os.PathLike[str] | None = None,
        spill_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        _check(model, version, role, sampling, capacity)
        self._sampling = sampling
        place = server or os.environ.get("POD_NAME") or os.environ.get("HOSTNAME") or socket.gethostname()
        who = {"model": id_text(model), "version": id_text(version), "server": place}
        within = environment or os.environ.get("TELLTALE_ENVIRONMENT")
        about = {**who, "environment": within} if within else who
        self._prediction: dict[str, Any] = {"type": "prediction", **about}
        if role != "live":
            self._prediction["role"] = role
        if sampling < 1:
            self._prediction["sampling_fraction"] = sampling
        self._label = {"type": "label", **{n: v for n, v in about.items() if n in ("model", "environment")}}
        self._transport = transport or http_transport(url, key, key_file)
        self._who = who
        self._shipper: Shipper | None = None
        if self._transport is not None:
            where = getattr(self._transport, "destination", type(self._transport).__qualname__)
            owner = f"{where} {within} {who['model']}"
            folder = Spill(Path(spill), spill_bytes, owner) if spill is not None else None
            self._shipper = Shipper(self._transport, {"type": "health", **about}, capacity, folder)

    def __repr__(self) -> str:
        who = ", ".join(f"{name}={value!r}" for name, value in self._who.items())
        return f"Logger({who}, transport={self._transport!r})"

    def predict(
        self,
        features: object = None,
        prediction: object = None,
        *,
        latency_ms: float | None = None,
        prediction_id: object = None,
        entity_id: object = None,
        segments: Mapping[str, object] | None = None,
        error: object = None,
        batch_id: object = None,
        trace_id: object = None,
        timestamp: datetime | float | None = None,
    ) -> str:
        """Log that the model answered, or (with ``error``) failed to. The prediction's id: the one given, or a new one.

        ``features`` are copied, but values that can change in place, such as arrays, are not. ``prediction`` is a
        number, a text, a boolean, or ``{"score": ..., "label": ...}``. ``timestamp`` is epoch seconds or a datetime;
        now, if left out.
        """
        told = ""
        try:
            told = (prediction_id if type(prediction_id) is str else id_text(prediction_id)) or next(_ids)
            shipper = self._shipper
            if shipper is None or not kept(told, self._sampling):
                return told
            event = {
                **self._prediction,
                "prediction_id": told,
                "timestamp": _epoch_seconds(timestamp),
                "features": features.copy() if type(features) is dict else self.read(features),
                "prediction": prediction.copy() if type(prediction) in (dict, list) else prediction,  # type: ignore[attr-defined]  # both have it
                "latency_ms": latency_ms,
            }
            if error is not None:
                event |= {"status": "error", "error": error}
            if entity_id is not None or segments is not None or batch_id is not None or trace_id is not None:
                event |= {"entity_id": entity_id, "segments": segments, "batch_id": batch_id, "trace_id": trace_id}
            shipper.put(event)
        except Exception as fault:  # noqa: BLE001 - the pod goes on whatever happens here
            self._note(fault)
        return told or next(_ids)

    def label(
        self,
        prediction_id: object,
        label: object,
        *,
        outcomes: Mapping[str, float] | None = None,
        timestamp: datetime | float | None = None,
    ) -> None:
        """Log that the truth about a prediction is known, now or at ``timestamp``. None takes an earlier label back."""
        try:
            told = id_text(prediction_id)
            if self._shipper is None or not kept(told, self._sampling):
                return
            event = {**self._label, "prediction_id": told, "label": label, "timestamp": _epoch_seconds(timestamp)}
            if outcomes is not None:
                event["outcomes"] = dict(outcomes)
            self._shipper.put(event)
        except Exception as fault:  # noqa: BLE001 - see above
            self._note(fault)

    def timed(
        self,
        features: object = None,
        *,
        prediction_id: object = None,
        entity_id: object = None,
        segments: Mapping[str, object] | None = None,
        batch_id: object = None,
        trace_id: object = None,
    ) -> Call:
        """A context that logs a prediction with the time it took, and an error when it is left by one.

        >>> logger = Logger("loans", "2", server="pod-4")
        >>> with logger.timed({"income": 41.5}, prediction_id="a1") as call:
        ...     call.prediction = 0.83
        """
        beside = {
            "entity_id": entity_id,
            "segments": segments,
            "batch_id": batch_id,
            "trace_id": trace_id,
        }
        try:
            told = id_text(prediction_id) or next(_ids)
        except Exception as fault:  # noqa: BLE001 - see above
            self._note(fault)
            told = next(_ids)
        return Call(self, features, told, beside)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was logged has left memory: delivered, refused, or on disk. False where time ran out."""
        return self._shipper is None or self._shipper.flush(timeout)

    def close(self, timeout: float = EXIT_SECONDS) -> None:
        """Send what can be sent in some seconds; later events are dropped. Done by itself when the process ends."""
        if self._shipper is not None:
            self._shipper.close(timeout)

    def stats(self) -> Stats:
        """What has become of the events that this process logged."""
        return self._shipper.stats() if self._shipper else Stats(0, 0, 0, 0, 0, 0, 0, "no URL of Telltale is set")

    def guarded(self, read: Callable[[], Value]) -> Value | None:
        """What a function gives; None, and a failed call in the counts, where it raises."""
        try:
            return read()
        except Exception as fault:  # noqa: BLE001 - see above
            self._note(fault)
            return None

    def read(self, features: object) -> dict[Any, Any] | None:
        """A row's features, copied; None, and a failed call in the counts, where they cannot be read."""
        return None if features is None else self.guarded(lambda: feature_values(features))

    def _note(self, fault: Exception) -> None:
        if self._shipper is not None:
            self._shipper.note_failure(fault)


@final
class Call:
    """One call of the model, timed as a context; set ``prediction`` in it.

    prediction_id
        The id it is logged under.
    """

    def __init__(self, logger: Logger, features: object, prediction_id: str, beside: dict[str, Any]) -> None:
        self.prediction_id = prediction_id
        self.features = features
        self.prediction: object = None
        self._logger = logger
        self._beside = beside
        self._started = time.perf_counter()
        self._at = time.time()

    def __enter__(self) -> Call:
        """Copy the features, which the model may change, and begin to time."""
        self.features = self._logger.read(self.features)
        self._at = time.time()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log. Being cancelled or ended (no ``Exception``) says nothing of the model and is not logged."""
        latency_ms = (time.perf_counter() - self._started) * 1000
        if error is not None and not isinstance(error, Exception):
            return
        self._logger.predict(
            self.features,
            self.prediction,
            latency_ms=latency_ms,
            prediction_id=self.prediction_id,
            timestamp=self._at,
            error=None if error is None else described(error),
            **self._beside,
        )


def _epoch_seconds(at: datetime | float | None) -> float:
    """Now, or a given time; a datetime without an offset is local, as everywhere in Python."""
    if at is None:
        return time.time()
    return at.timestamp() if isinstance(at, datetime) else at


def _check(model: str, version: str, role: str, sampling: float, capacity: int) -> None:
    for name, value in (("model", model), ("version", version)):
        if not id_text(value):
            raise ValueError(f"{name} is empty; it should name the {name} that answers")
    if role not in ("live", "shadow"):
        raise ValueError(f"role is {role!r}; use live or shadow")
    if not LEAST_FRACTION <= sampling <= 1:
        raise ValueError(f"sampling is {sampling!r}; it should be at least {LEAST_FRACTION:g}, at most 1")
    if capacity < 1:
        raise ValueError(f"capacity is {capacity!r}; it should be at least 1")


def http_transport(
    url: str | None = None, key: str | None = None, key_file: str | os.PathLike[str] | None = None
) -> HttpTransport | None:
    """What these settings, or else the environment, say; None where nothing says where Telltale is."""
    where = url or os.environ.get("TELLTALE_URL")
    if not where:
        log.warning("neither url nor TELLTALE_URL says where Telltale is: nothing is sent")
        return None
    given = key is not None or key_file is not None
    secret = key if given else os.environ.get("TELLTALE_KEY")
    file = key_file if given else os.environ.get("TELLTALE_KEY_FILE")
    return HttpTransport(where, secret or "", os.fspath(file or ""))


def _new_ids() -> Iterator[str]:
    # Not uuid4: asking the system for random bytes lets go of the interpreter, which may be long in coming back.
    return map(f"{os.urandom(8).hex()}-{{:x}}".format, itertools.count())


def _after_fork() -> None:
    global _ids  # noqa: PLW0603 - one sequence of ids per process
    _ids = _new_ids()


_ids = _new_ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
