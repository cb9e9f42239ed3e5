"""From a real broker to the store, and what reading alone takes. The broker is a process of its own."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.events import BATCH, EVENTS, sent, service_of
from benchmarks.ways import LINES

if TYPE_CHECKING:
    from monitor.ingest import Origin
    from monitor.service import Service

PARTITIONS = 4
UNIT = "events per CPU s"


@contextlib.contextmanager
def topic_with(lines_a_message: int, folder: Path) -> Iterator[tuple[str, str]]:
    """A topic with all events on a broker on loopback: its address, and the topic's name."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from broker import Broker, Node  # type: ignore[import-not-found, unused-ignore]  # it is on the path of tests

    node = Node(folder)
    node.start()
    try:
        broker = Broker(f"127.0.0.1:{node.port}", node)
        topic = f"events-{uuid.uuid4().hex[:8]}"
        broker.create(topic, PARTITIONS)
        for body in sent(LINES.name):
            lines = body.split(b"\n")
            messages = (b"\n".join(lines[n : n + lines_a_message]) for n in range(0, len(lines), lines_a_message))
            broker.produce(topic, [{"value": message} for message in messages])
        yield broker.bootstrap, topic
    finally:
        node.kill()


def poll_alone() -> tuple[str, float, str]:
    """The client library's polling, one event a message, and nothing done with them."""
    from kafka import KafkaConsumer

    from monitor.sources.kafka import SETTINGS

    with tempfile.TemporaryDirectory() as folder, topic_with(1, Path(folder)) as (bootstrap, topic):
        settings = {**SETTINGS, "auto_offset_reset": "earliest"}
        with contextlib.closing(KafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)) as consumer:
            seen, first, started = 0, 0, 0.0
            while seen < EVENTS + BATCH:
                seen += sum(map(len, consumer.poll(timeout_ms=500).values()))
                if not started and seen:
                    first, started = seen, time.process_time()
            seconds = time.process_time() - started
    return "kafka-python's poll alone, one event a message", (seen - first) / seconds, UNIT


class _Counted:
    """Has batches taken in, and notes how many events that were and what CPU time the process had used by then."""

    def __init__(self, service: Service) -> None:
        self.taken: list[tuple[int, float]] = []
        self.revision = service.revision
        self._service = service

    def take_batch(self, lines: Sequence[bytes], origin: Origin) -> None:
        """Take a batch in."""
        before = self.taken[-1][0] if self.taken else 0
        accepted = self._service.take_batch(lines, origin).accepted
        self.taken.append((before + accepted, time.process_time()))

    def forget_batch(self, origin: Origin) -> None:
        """Remove what is there of a batch."""
        self._service.forget_batch(origin)

    def report_progress(self, progress: Sequence[object]) -> None:
        """Nobody waits for it here."""


def over_kafka(lines_a_message: int) -> tuple[str, float, str]:
    """Kafka to store, exactly once."""
    from monitor.batches import Limits
    from monitor.config import KafkaSource
    from monitor.intake import Intake
    from monitor.metrics import Metrics
    from monitor.sources.kafka import open_kafka

    with tempfile.TemporaryDirectory() as folder, topic_with(lines_a_message, Path(folder)) as (bootstrap, topic):
        spec = KafkaSource(bootstrap_servers=(bootstrap,), topics=(topic,), group="bench")
        with service_of(Path(folder) / "data", sources={"kafka": spec.model_dump()}) as service:
            taker = _Counted(service)
            with contextlib.closing(Intake(open_kafka(spec), taker, Metrics(), Limits())) as intake:
                while not taker.taken or taker.taken[-1][0] < EVENTS + BATCH:
                    intake.step()
    (first, started), (last, ended) = taker.taken[0], taker.taken[-1]
    what = "one event a message" if lines_a_message == 1 else f"NDJSON of {lines_a_message} events a message"
    return f"Kafka to store, {what}", (last - first) / (ended - started), UNIT
