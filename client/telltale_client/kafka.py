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
from telltale_client.encoding import described

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

    @property
    def destination(self) -> str:
        """Its topic, of these brokers."""
        return repr(self)

    def send(self, batch: Batch) -> Receipt:
        """Send every line as a message, and return when the broker has them. Raises UnavailableError."""
        if self._producer is None:
            self._producer = _connected(self._settings)
        sent: dict[int, Any] = {}
        too_large: dict[int, object] = {}
        unsent: dict[int, object] = {}
        for place, line in enumerate(batch.lines):
            try:
                sent[place] = self._producer.send(self._topic, line, key=_key(line))
            except MessageSizeTooLargeError as error:  # noqa: PERF203 - each line has a fate of its own
                too_large[place] = error
            except KafkaError as error:
                unsent = dict.fromkeys(range(place, len(batch.lines)), error)
                break  # it has waited long enough for all that follow
        with contextlib.suppress(KafkaTimeoutError):  # the futures know more
            self._producer.flush(timeout=SECONDS + 1)
        unsent |= {place: future.exception for place, future in sent.items() if not future.succeeded()}
        if any(_is_fatal(error) for error in unsent.values()):
            with contextlib.suppress(KafkaError):
                self.close()  # it would refuse all that comes; the next batch gets another
        failed = too_large | unsent
        trouble = [error for error in failed.values() if not isinstance(error, MessageSizeTooLargeError)]
        if trouble:
            left = batch.part(sorted(failed)) if len(failed) < len(batch.lines) else None
            raise UnavailableError(f"{self!r}: {_told(trouble[0])}", left=left)
        return Receipt(len(batch.lines) - len(failed), len(failed), "larger than Kafka takes" if failed else "")

    def close(self) -> None:
        """Leave the broker."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1)

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
    except Exception as error:  # noqa: BLE001 - the library raises anything for a setting that it does not know
        for each in made:
            each.close()
        told = f"Kafka at {settings['bootstrap_servers']}: {_told(error)}"
        raise UnavailableError(told, for_people=not isinstance(error, KafkaError)) from None


def _key(line: bytes) -> bytes | None:
    """The prediction's id; what has none may go to any partition."""
    told = json.loads(line).get("prediction_id")
    return told.encode() if told else None


def _is_fatal(error: object) -> bool:
    """Whether the producer is of no use after it: an idempotent one then refuses everything."""
    return isinstance(error, KafkaError) and not error.retriable and not isinstance(error, KafkaTimeoutError)


def _told(error: object) -> str:
    return described(error)[:200] if isinstance(error, BaseException) else "no answer in time"
