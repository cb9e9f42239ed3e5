"""The demo's serving pods: they score people with a real model and log what they did."""

from __future__ import annotations

import http.client
import http.server
import queue
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson
import polars as pl

from monitor.demo.world import SERVERS, Guesser, Plan, Row, pays_back, people, unit_bug, upstream_change

MODEL = "loans"
ROWS_PER_STEP = 50
LABELS_AFTER_HOURS = (2.0, 11.5)


@dataclass(frozen=True)
class Step:
    """One step of demo time, the same for all pods."""

    start: datetime
    end: datetime
    upstream_broken: bool


class Shipper:
    """Sends events over one kept connection."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=60)

    def send(self, events: Sequence[Row]) -> None:
        """Ship events and wait until they are durable. Raises where any was refused: the demo's events are right."""
        body = b"\n".join(map(orjson.dumps, events))
        try:
            status, answer = self._post(body)
        except ConnectionError:  # it was idle for so long that the server ended it; nothing is taken in twice
            self._connection.close()
            status, answer = self._post(body)
        if status != 200 or orjson.loads(answer)["rejected"]:
            raise RuntimeError(f"events refused: {status} {answer[:200]!r}")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", "/v1/events", body, {"Content-Type": "application/x-ndjson"})
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Pod:
    """One server: scores people, and keeps the truth of its predictions until it becomes known."""

    def __init__(
        self, name: str, seed: int, plan: Plan, versions: Mapping[str, Guesser], spread: Mapping[str, float]
    ) -> None:
        self.name = name
        self.version = "1"
        self._waiting: list[Row] = []
        self._rng = np.random.default_rng([seed, 3, SERVERS.index(name)])
        self._plan = plan
        self._versions = versions
        self._spread = spread

    def labels(self, until: datetime) -> list[Row]:
        """The labels that have become known by a time, each given once."""
        known = [label for label in self._waiting if label["timestamp"] <= until.timestamp()]
        self._waiting = [label for label in self._waiting if label["timestamp"] > until.timestamp()]
        return known

    def serve(self, step: Step, rows: int = ROWS_PER_STEP) -> list[Row]:
        """The predictions of one step, in order of time."""
        table = people(self._rng, rows)
        truth = pays_back(self._rng, table)
        if step.upstream_broken:
            table = upstream_change(table, self._plan, self._spread, self._rng)
        if self.version == "2" and self.name == self._plan.faulty_server:
            table = unit_bug(table)
        scores = self._versions[self.version].score(table)
        seconds = np.sort(self._rng.uniform(0, (step.end - step.start).total_seconds(), table.height))
        latencies = self._rng.lognormal(2.0, 0.4, table.height)
        waits = self._rng.uniform(*LABELS_AFTER_HOURS, table.height)
        events = []
        for i, features in enumerate(table.iter_rows(named=True)):
            at = step.start + timedelta(seconds=float(seconds[i]))
            prediction_id = f"{self.name}-{at.timestamp():.3f}-{i}"
            events.append(
                {
                    "type": "prediction",
                    "model": MODEL,
                    "version": self.version,
                    "server": self.name,
                    "prediction_id": prediction_id,
                    "timestamp": at.timestamp(),
                    "features": features,
                    "prediction": {"score": float(scores[i]), "label": bool(scores[i] >= 0.5)},
                    "latency_ms": float(latencies[i]),
                }
            )
            self._waiting.append(
                {
                    "type": "label",
                    "model": MODEL,
                    "prediction_id": prediction_id,
                    "label": bool(truth[i]),
                    "timestamp": (at + timedelta(hours=float(waits[i]))).timestamp(),
                }
            )
        return events


def make_pods(seed: int, plan: Plan, versions: Mapping[str, Guesser], training: pl.DataFrame) -> list[Pod]:
    """The fleet, all on version 1."""
    spread = {n: float(training[n].std()) for n in training.columns if training[n].dtype.is_numeric()}  # type: ignore[arg-type]  # numeric columns only
    return [Pod(name, seed, plan, versions, spread) for name in SERVERS]


class Worker(threading.Thread):
    """Lets one pod work through the steps it is given, and ships its log."""

    def __init__(self, pod: Pod, url: str) -> None:
        super().__init__(name=pod.name, daemon=True)
        self.steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._pod = pod
        self._shipper = Shipper(url)

    def run(self) -> None:
        """Work until there is no next step."""
        while (step := self.steps.get()) is not None:
            try:
                self._shipper.send(self._pod.serve(step))
                self.done.put(None)
            except Exception as error:  # noqa: BLE001 - handed to the conductor, who stops the demo with it
                self.done.put(error)
        self._shipper.close()


class Pods:
    """The fleet, each pod on a thread of its own, shipping over HTTP."""

    def __init__(
        self, seed: int, url: str, plan: Plan, versions: Mapping[str, Guesser], training: pl.DataFrame
    ) -> None:
        self._pods = {pod.name: pod for pod in make_pods(seed, plan, versions, training)}
        self._workers = [Worker(pod, url) for pod in self._pods.values()]
        self._labels = Shipper(url)
        for worker in self._workers:
            worker.start()

    def deploy(self, version: str, servers: Sequence[str]) -> None:
        """Put a version on some servers; they serve it from the next step on."""
        for name in servers:
            self._pods[name].version = version

    def serving(self, version: str) -> list[str]:
        """The servers that serve a version."""
        return [name for name, pod in self._pods.items() if pod.version == version]

    def serve(self, step: Step) -> None:
        """Let all pods work through a step at once, and the labels that became known in it come in."""
        for worker in self._workers:
            worker.steps.put(step)
        errors = [error for worker in self._workers if (error := worker.done.get()) is not None]
        if errors:
            raise errors[0]
        known = [label for pod in self._pods.values() for label in pod.labels(step.end)]
        if known:
            self._labels.send(known)

    def stop(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.steps.put(None)
        for worker in self._workers:
            worker.join(timeout=10)
        self._labels.close()


class HealthPages:
    """Answers the probe for all pods."""

    def __init__(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"ok\n")

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health pages", daemon=True)
        self._thread.start()

    def url(self, name: str) -> str:
        """A pod's health URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}/health"

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)
