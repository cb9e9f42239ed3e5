"""Batches to Kafka, for pods that have it nearer than Telltale. Needs ``telltale-client[kafka]``.

One message per event, its key the prediction's id, so that a prediction and its label come through one partition.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.net.compat import KafkaNetClient

from telltale_client.batches import Batch, Receipt, UnavailableError

SECONDS = 20
SETTINGS = {
    "acks": "all",
    "enable_idempotence": True,  # what the library sends again counts once
    "linger_ms": 20,
    "compression_type": "gzip",
    "bootstrap_timeout_ms": 10_000,
    "max_block_ms": SECONDS * 1000,
    "request_timeout_ms": 5_000,
    "delivery_timeout_ms": SECONDS * 1000,
    "metrics_enabled": False,
    "client_id": "telltale-client",
}
_of_the_parent: list[Any] = []
"""Producers that came with a fork. Collecting one would wait for a thread that is not in this process."""


class KafkaTransport:
    """A producer, made when the first batch is sent, so that a pod starts without its broker.

    bootstrap_servers, topic
        Where to, such as ``"kafka:9092"`` and ``"scoring"``.
    settings
        Further settings of ``kafka.KafkaProducer``: security, compression.

    A batch that timed out, or came from the disk, is sent again though some of it may have arrived: Kafka knows no
    Idempotency-Key, and Telltale counts what Kafka holds.
    """

    def __init__(self, bootstrap_servers: str | list[str], topic: str, **settings: Any) -> None:
        self._topic = topic
        self._settings = {**SETTINGS, "bootstrap_servers": bootstrap_servers, **settings}
        self._producer: Any = None

    def __repr__(self) -> str:
        return f"KafkaTransport({self._settings['bootstrap_servers']!r}, {self._topic!r})"

    def send(self, batch: Batch) -> Receipt:
        """Send every line as a message, and return when the broker has them. Raises UnavailableError."""
        if self._producer is None:
            self._producer = _connected(self._settings)
        sent: list[tuple[bytes, Any]] = []
        left: list[bytes] = []
        too_large, trouble = 0, ""
        for line in batch.lines:
            if left:  # the first one has waited long enough for all of them
                left.append(line)
                continue
            try:
                sent.append((line, self._producer.send(self._topic, line, key=_key(line))))
            except MessageSizeTooLargeError:
                too_large += 1
            except KafkaError as error:
                left.append(line)
                trouble = _told(error)
        with contextlib.suppress(KafkaTimeoutError):  # the futures know more
            self._producer.flush(timeout=SECONDS + 1)
        for line, future in sent:
            if isinstance(future.exception, MessageSizeTooLargeError):
                too_large += 1
            elif not future.succeeded():
                left.append(line)
                trouble = trouble or _told(future.exception)
        if left:
            rest = Batch(tuple(left)) if len(left) < len(batch.lines) else None
            raise UnavailableError(f"{self!r}: {trouble}", left=rest)
        return Receipt(len(batch.lines) - too_large, too_large, "larger than Kafka takes" if too_large else "")

    def close(self) -> None:
        """Leave the broker."""
        if self._producer is not None:
            self._producer.close(timeout=1)
        self._producer = None

    def abandon(self) -> None:
        """Forget the parent process's producer."""
        if self._producer is not None:
            _of_the_parent.append(self._producer)
        self._producer = None


def _connected(settings: dict[str, Any]) -> Any:
    """A producer. The library leaves its network thread behind when it finds no broker."""
    made: list[Any] = []

    def client(**more: Any) -> Any:
        made.append(KafkaNetClient(**more))
        return made[-1]

    try:
        producer = KafkaProducer(**settings, kafka_client=client)
        producer._unregister_cleanup()  # noqa: SLF001 - else it is closed at the end before the last batch is sent
        return producer
    except KafkaError as error:
        for each in made:
            each.close()
        raise UnavailableError(f"Kafka at {settings['bootstrap_servers']}: {_told(error)}") from None


def _key(line: bytes) -> bytes | None:
    """The prediction's id; what has none may go to any partition."""
    told = json.loads(line).get("prediction_id")
    return told.encode() if told else None


def _told(error: object) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}" if error else "no answer in time"
