"""Pods that ship over Kafka: a real broker, and the reader of the service."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from given import ServiceMaker, StillClock
from kafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumberError,
    TopicAuthorizationFailedError,
)
from processes import free_port, wait_until

from monitor.batches import Limits
from monitor.config import KafkaSource
from monitor.intake import run_intake
from monitor.metrics import Metrics
from monitor.service import Service
from monitor.sources.kafka import open_kafka
from telltale_client import Logger, kafka
from telltale_client.batches import Batch, UnavailableError
from telltale_client.kafka import KafkaTransport

MakeLogger = Callable[..., Logger]
pytestmark = [
    # kafka-python leaves sockets of failed connection attempts to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("_collected"),
]


@pytest.fixture
def _collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("CRITICAL", "kafka")  # its records hold on to what should be collected
    yield
    gc.collect()


@contextlib.contextmanager
def reading(broker: Broker, topic: str, make_service: ServiceMaker, clock: StillClock) -> Iterator[Service]:
    clock.at = datetime.now(UTC)
    spec = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,), group=f"g-{topic}")
    service = make_service(sources={"kafka": spec.model_dump()})
    stopped = threading.Event()
    given = (lambda: open_kafka(spec), service, Metrics(), stopped, Limits(rows=500, size=1_000_000, seconds=0.2))
    thread = threading.Thread(target=run_intake, args=given)
    thread.start()
    try:
        yield service
    finally:
        stopped.set()
        thread.join()


def rows(service: Service, table: str) -> list[dict[str, Any]]:
    return service.store.select(f"SELECT * FROM {table} FINAL").to_dicts()  # noqa: S608 - names of this file


def partitions(service: Service, table: str) -> dict[str, str]:
    return {r["prediction_id"]: r["source"] for r in rows(service, table)}


def test_predictions_and_their_labels_come_through_one_partition(
    broker: Broker, make_service: ServiceMaker, clock: StillClock, make_logger: MakeLogger
) -> None:
    topic = broker.topic()
    logger = make_logger(transport=KafkaTransport(broker.bootstrap, topic))
    for n in range(200):
        logger.label(logger.predict({"x": float(n)}, "yes"), "no")
    assert logger.flush(30)
    assert logger.stats().delivered == 400
    with reading(broker, topic, make_service, clock) as service:
        wait_until(lambda: len(rows(service, "labels")) == len(rows(service, "predictions")) == 200, "all rows", 60)
        assert partitions(service, "predictions") == partitions(service, "labels")
        assert len(set(partitions(service, "predictions").values())) == 4
        assert rows(service, "dead_letters") == []


def test_a_fork_gets_a_producer_of_its_own(
    broker: Broker, make_service: ServiceMaker, clock: StillClock, make_logger: MakeLogger
) -> None:
    topic = broker.topic(partitions=1)
    logger = make_logger(transport=KafkaTransport(broker.bootstrap, topic))
    logger.predict({"x": 1.0}, "parent")
    assert logger.flush(30)
    child = os.fork()
    if not child:
        logger.predict({"x": 1.0}, "child")
        os._exit(0 if logger.flush(30) else 1)
    assert os.waitpid(child, 0)[1] == 0
    logger.predict({"x": 1.0}, "parent")
    assert logger.flush(30)
    with reading(broker, topic, make_service, clock) as service:
        wait_until(lambda: len(rows(service, "predictions")) == 3, "three rows", 60)
        assert sorted(r["label"] for r in rows(service, "predictions")) == ["child", "parent", "parent"]


def test_what_was_logged_last_arrives_when_the_process_ends(
    broker: Broker, make_service: ServiceMaker, clock: StillClock
) -> None:
    topic = broker.topic()
    code = """
import sys
from telltale_client import Logger
from telltale_client.kafka import KafkaTransport
logger = Logger("m", "1", transport=KafkaTransport(*sys.argv[1:]))
logger.predict({"x": 1.0}, "first")
logger.flush(30)
for n in range(500):
    logger.predict({"x": 1.0}, "last")
"""
    path = str(Path(__file__).parents[2] / "client")
    command = [sys.executable, "-c", code, broker.bootstrap, topic]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with reading(broker, topic, make_service, clock) as service:
        wait_until(lambda: len(rows(service, "predictions")) == 501, "all rows", 60)


def test_an_event_that_kafka_does_not_take_is_counted_and_the_others_arrive(
    broker: Broker, make_logger: MakeLogger
) -> None:
    logger = make_logger(transport=KafkaTransport(broker.bootstrap, broker.topic()))
    logger.predict({"x": "long" * 400_000})
    logger.predict({"x": 1.0})
    assert logger.flush(30)
    stats = logger.stats()
    assert (stats.delivered, stats.rejected) == (1, 1)
    assert "larger than Kafka takes" in stats.last_error


class Answered:
    """A future of a producer."""

    def __init__(self, exception: Exception | None) -> None:
        self.exception = exception

    def succeeded(self) -> bool:
        return self.exception is None


class Producer:
    """Fails for some lines, or is not to be used any more."""

    def __init__(self, answers: dict[bytes, Exception]) -> None:
        self.answers = answers
        self.closed = False

    def send(self, topic: str, line: bytes, key: bytes | None) -> Answered:
        del topic, key
        failure = self.answers.get(line)
        if isinstance(failure, MessageSizeTooLargeError):
            raise failure
        return Answered(failure)

    def flush(self, timeout: float) -> None:
        del timeout

    def close(self, timeout: float) -> None:
        del timeout
        self.closed = True


@pytest.mark.parametrize(
    ("failure", "anew"),
    [
        (TopicAuthorizationFailedError(), True),
        (OutOfOrderSequenceNumberError(), True),
        (NotLeaderForPartitionError(), False),
        (KafkaTimeoutError(), False),
    ],
)
def test_a_producer_that_refuses_everything_from_now_on_is_replaced(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, *, anew: bool
) -> None:
    producers = [Producer({b"{}": failure}), Producer({})]
    given = iter(producers)
    monkeypatch.setattr(kafka, "_connected", lambda _: next(given))
    transport = KafkaTransport("127.0.0.1:1", "scoring")
    with pytest.raises(UnavailableError):
        transport.send(Batch((b"{}",)))
    assert producers[0].closed == anew
    producers[0].answers.clear()
    assert transport.send(Batch((b"{}",))).accepted == 1
    assert (next(given, None) is None) == anew


def test_what_is_left_of_a_batch_is_in_its_order_and_knows_of_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tuple(b'{"n":%d}' % n for n in range(5))
    trouble: dict[bytes, Exception] = {lines[1]: MessageSizeTooLargeError(), lines[2]: NotLeaderForPartitionError()}
    monkeypatch.setattr(kafka, "_connected", lambda _: Producer(trouble))
    transport = KafkaTransport("127.0.0.1:1", "scoring")
    with pytest.raises(UnavailableError) as caught:
        transport.send(Batch(lines, reported=7))
    left = caught.value.left
    assert left is not None
    # What is too large is counted when the rest of its batch is through.
    assert (left.lines, left.events, left.reported) == (lines[1:3], 2, 0)
    trouble[lines[4]] = NotLeaderForPartitionError()
    with pytest.raises(UnavailableError) as caught:
        transport.send(Batch(lines, reported=7))
    left = caught.value.left
    assert left is not None
    assert (left.lines, left.events, left.reported) == ((*lines[1:3], lines[4]), 2, 7)


def test_a_setting_that_kafka_does_not_know_costs_no_event(make_logger: MakeLogger) -> None:
    logger = make_logger(transport=KafkaTransport("127.0.0.1:1", "scoring", colour="red"))
    logger.predict({"x": 1.0})
    wait_until(lambda: logger.stats().retries, "an attempt", 20)
    assert (logger.stats().waiting, logger.stats().dropped) == (1, 0)
    assert "colour" in logger.stats().last_error


def test_without_a_broker_a_pod_starts_and_events_wait(make_logger: MakeLogger) -> None:
    logger = make_logger(transport=KafkaTransport(f"127.0.0.1:{free_port()}", "scoring", bootstrap_timeout_ms=200))
    logger.predict({"x": 1.0})
    wait_until(lambda: logger.stats().retries, "an attempt", 20)
    assert logger.stats().waiting == 1
    assert "Kafka at 127.0.0.1" in logger.stats().last_error
