"""The demo's story: what Telltale says is compared with what went wrong in the world, which it is never told.

The suite plays one seed; ``python -m benchmarks.seeds`` plays twenty and counts.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from monitor.demo.checking import EVENTS_IN_ORDER, mistakes
from monitor.demo.pods import Shipper
from monitor.demo.world import Plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[12])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, Any]]]:
    """The seed and the time line of a whole demo, run as a person runs it."""
    command = [
        sys.executable,
        "-m",
        "monitor.cli",
        "demo",
        "--exit",
        "--json",
        "--port",
        "0",
        "--seed",
        str(request.param),
    ]
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == [".demo"]
    return request.param, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_right_server_features_and_version_are_named_and_nothing_before_its_cause(
    told: tuple[int, list[dict[str, Any]]],
) -> None:
    seed, entries = told
    assert mistakes(Plan.of(seed), entries) == []


def test_a_mistaken_time_line_would_be_noticed(told: tuple[int, list[dict[str, Any]]]) -> None:
    """The check above can fail: another plan, a lost event, or an alarm before its cause do not pass."""
    seed, entries = told
    plan = Plan.of(seed)
    other = next(p for p in map(Plan.of, range(100, 200)) if p.faulty_server != plan.faulty_server)
    assert mistakes(other, entries)
    for event in EVENTS_IN_ORDER:
        assert mistakes(plan, [e for e in entries if e["event"] != event])
    early = {**next(e for e in entries if e["event"] == "drift_found"), "at": "2026-01-05T02:00:00Z"}
    assert mistakes(plan, [early, *entries])


def test_lines_say_what_applies(told: tuple[int, list[dict[str, Any]]]) -> None:
    _, entries = told
    for entry in entries:
        assert {"at", "event", "model"} <= entry.keys()
    first = {e["event"]: e for e in reversed(entries)}
    assert first["rollback_requested"]["action_id"] == first["rollback_effective"]["action_id"]
    assert first["rollback_requested"]["baseline_version"] == "1"
    assert first["accuracy_drop_found"]["value"] > 0.01


class EndsIdleConnections(http.server.BaseHTTPRequestHandler):
    """Closes a connection after each answer without saying so, as a server does to one that is idle for long."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"accepted": 1, "rejected": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.server.answered += 1  # type: ignore[attr-defined]  # set below
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


def test_a_connection_that_the_server_ended_does_not_end_the_demo() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EndsIdleConnections) as server:
        server.answered = 0  # type: ignore[attr-defined]  # counted by the handler
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        shipper = Shipper(f"http://127.0.0.1:{server.server_address[1]}")
        try:
            for _ in range(3):
                shipper.send([{"type": "prediction"}])
        finally:
            shipper.close()
            server.shutdown()
            thread.join()
        assert server.answered == 3  # type: ignore[attr-defined]  # counted by the handler
