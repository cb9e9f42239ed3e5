"""What a call costs the pod: ``python client/benchmark.py`` prints a table.

A server that takes everything runs as a process of its own, so every call meets the sending thread at work. Between two
calls the pod works for a moment, on the interpreter, as serving does.
"""

from __future__ import annotations

import http.server
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from telltale_client import Logger

CALLS = 20_000
WORK_SECONDS = 200e-6
FEATURES: dict[str, object] = {f"number_{n}": n * 1.1 for n in range(20)} | {f"text_{n}": "north" for n in range(5)}
ANSWER = {"score": 0.83, "label": "yes"}


class Sink(http.server.BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read, and say that all was taken."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"accepted": body.count(b"\n") + 1, "rejected": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def serve(port: Connection) -> None:
    """Take everything on a free port, which is told."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    port.send(server.server_address[1])
    server.serve_forever()


def work(seconds: float) -> None:
    """Keep the interpreter busy."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def measured(call: Callable[[], object], pause: float) -> list[float]:
    """Microseconds of each call, sorted."""
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - started) / 1000)
        work(pause)
    return sorted(taken)


def main() -> None:
    """Measure, and print."""
    here, there = multiprocessing.Pipe()
    sink = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    sink.start()
    url = f"http://127.0.0.1:{here.recv()}"
    logging.disable()
    print(f"{CALLS} calls each, 25 features; microseconds of a call")
    print(f"{'what':50}{'median':>9}{'p99':>9}{'p99.9':>9}{'longest':>10}")
    _show("nothing at all: what the machine does to any call", measured(lambda: None, WORK_SECONDS))
    for what, sampling, capacity, pause in (
        ("predict, 0.2 ms of work between", 1.0, 10_000, WORK_SECONDS),
        ("predict, nothing between (a batch job)", 1.0, CALLS, 0.0),
        ("predict, a sample of 1 %", 0.01, 10_000, WORK_SECONDS),
        ("predict, the queue is full", 1.0, 1, WORK_SECONDS / 10),
    ):
        logger = Logger("m", "1", server="pod", url=url, sampling=sampling, capacity=capacity)
        logger.predict(FEATURES, ANSWER, latency_ms=1.0)
        times = measured(lambda to=logger: to.predict(FEATURES, ANSWER, latency_ms=1.0), pause)  # type: ignore[misc]  # bound at once
        logger.flush(60)
        stats = logger.stats()
        logger.close()
        _show(what, times, f"{stats.delivered} delivered, {stats.dropped} dropped")
    sink.terminate()


def _show(what: str, times: list[float], more: str = "") -> None:
    shown = [times[int(len(times) * share)] for share in (0.5, 0.99, 0.999)]
    print(f"{what:50}{shown[0]:9.1f}{shown[1]:9.1f}{shown[2]:9.1f}{times[-1]:10.0f}   {more}")


if __name__ == "__main__":
    main()
