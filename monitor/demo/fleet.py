"""A sample fleet for a whole stack: six pods that log to Kafka, with a fault upstream that began three hours ago.

Like pods whose logs waited in Kafka while Telltale was away, it begins with the log of the last six full hours; then it
goes on serving in real time. What went wrong, and in which features, depends on the seed; Telltale is not told.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import polars as pl
import structlog
import urllib3

from monitor.config import ConfigError
from monitor.demo.pods import MODEL, ROWS_PER_STEP, Pod, Step, make_pods
from monitor.demo.world import SERVERS, Plan, Row, train
from monitor.secrets import read_secret
from monitor.windows import floor

HOUR = timedelta(hours=1)
PAST = timedelta(hours=6)
BROKEN_FOR = timedelta(hours=3)
PAST_STEP = timedelta(minutes=10)
LIVE_STEP = timedelta(seconds=12)
PATIENCE_SECONDS = 300
log = structlog.get_logger()


class FleetError(Exception):
    """The fleet cannot reach what it needs. Says what, where, and what was answered."""


class SampleFleet:
    """The pods, and where their logs go."""

    def __init__(self, kafka: str, topic: str, seed: int, now: datetime, *, with_past: bool) -> None:
        self._topic = topic
        self._broken_since = floor(now, HOUR) - BROKEN_FOR
        self._at = floor(now, HOUR) - PAST if with_past else now
        self._announced = not with_past
        self.training, versions = train(seed)
        self._pods = make_pods(seed, Plan.of(seed), versions, self.training)
        self._producer = _producer(kafka)

    def catch_up(self, now: datetime) -> int:
        """Ship the log from where it ends up to a time; gives how many events that were."""
        events: list[Row] = []
        if not self._announced:
            events.append(_release(self._at))
            self._announced = True
        while self._at < now:
            behind = now - self._at > LIVE_STEP
            end = min(now, self._at + (PAST_STEP if behind else LIVE_STEP))
            step = Step(self._at, end, self._at >= self._broken_since)
            for pod in self._pods:
                events += _log_of(pod, step)
            self._at = end
        self._ship(sorted(events, key=lambda event: float(event["timestamp"])))
        return len(events)

    def close(self) -> None:
        """Let what is under way arrive."""
        self._producer.close(timeout=10)

    def _ship(self, events: Iterable[Row]) -> None:
        """Send events, each at its own time, and wait until Kafka has them."""
        sent = [
            self._producer.send(
                self._topic,
                orjson.dumps(event),
                key=str(event.get("prediction_id", MODEL)).encode(),
                timestamp_ms=int(event["timestamp"] * 1000),
            )
            for event in events
        ]
        self._producer.flush(timeout=PATIENCE_SECONDS)
        for future in sent:
            future.get(timeout=PATIENCE_SECONDS)


@dataclass(frozen=True)
class Api:
    """Telltale, as a training pipeline knows it."""

    url: str
    key: str
    stopped: threading.Event

    def register_reference(self, training: pl.DataFrame) -> None:
        """Tell what the model was trained on. Raises FleetError."""
        body = io.BytesIO()
        training.write_parquet(body)
        self._asked("POST", f"/v1/models/{MODEL}/reference?name=training.parquet", body.getvalue())

    def knows_the_fleet(self) -> bool:
        """Whether the pods were seen before. Raises FleetError."""
        return bool(orjson.loads(self._asked("GET", f"/v1/models/{MODEL}/fleet")))

    def _asked(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The answer to a request, with patience for a service that is not up yet."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        headers = {"Authorization": f"Bearer {self.key}"}
        while True:
            try:
                answer = urllib3.request(method, self.url + path, body=body, headers=headers, timeout=60, retries=False)
                if answer.status == 200:
                    return answer.data
                problem = f"status {answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"
                if 400 <= answer.status < 500 and answer.status != 422:
                    raise FleetError(f"{self.url} refused the sample fleet: {problem}")
            except urllib3.exceptions.HTTPError as error:
                problem = str(error)
            if time.monotonic() > deadline or self.stopped.wait(1):
                raise FleetError(f"{self.url} does not serve the sample fleet: {problem}")


def run_fleet(
    kafka: str, topic: str, api: str, key_file: Path, seed: int, now: Callable[[], datetime], stopped: threading.Event
) -> None:
    """Register what the model was trained on, ship the past once, and go on until told to stop. Raises FleetError."""
    try:
        telltale = Api(api.rstrip("/"), read_secret(None, key_file), stopped)
    except ConfigError as error:
        raise FleetError(str(error)) from None
    if urlsplit(api).scheme not in ("http", "https"):
        raise FleetError(f"{api!r} is not where an API can be; write one such as http://127.0.0.1:8300")
    log.info("waiting for Telltale", api=api)
    fleet = SampleFleet(kafka, topic, seed, now(), with_past=not telltale.knows_the_fleet())
    try:
        telltale.register_reference(fleet.training)
        log.info("shipping", events=fleet.catch_up(now()), topic=topic)
        while not stopped.wait(LIVE_STEP.total_seconds()):
            fleet.catch_up(now())
    finally:
        fleet.close()


def _log_of(pod: Pod, step: Step) -> list[Row]:
    rows = max(1, round(ROWS_PER_STEP * (step.end - step.start) / PAST_STEP))
    return [*pod.serve(step, rows), *pod.labels(step.end)]


def _release(at: datetime) -> Row:
    event = {"type": "release", "model": MODEL, "version": "1", "action": "deploy", "servers": list(SERVERS)}
    return {**event, "timestamp": at.timestamp(), "by": "sample fleet"}


def _producer(kafka: str) -> Any:
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    try:
        return KafkaProducer(bootstrap_servers=kafka.split(","), acks="all", linger_ms=20, client_id="sample-fleet")
    except KafkaError as error:
        raise FleetError(f"Kafka at {kafka} cannot be reached: {type(error).__name__}") from error
