"""The probe: what it makes of servers that answer, that do not, and that never stop answering."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from given import NOON

from monitor.config import ServerSpec
from monitor.health import probe


@pytest.fixture
def page() -> Iterator[str]:
    """A server whose path is the status it answers; it promises a body and sends only the start of it."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)
            over.wait(timeout=30)

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    over.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_the_status_is_the_answer_whatever_the_body(page: str) -> None:
    servers = {str(n): ServerSpec(health_url=f"{page}/{n}") for n in (200, 204, 302, 503)}
    events = [json.loads(line) for line in probe(servers, NOON)]
    assert [(e["server"], e["ok"], e["status_code"]) for e in events] == [
        ("200", True, 200),
        ("204", True, 204),
        ("302", False, 302),
        ("503", False, 503),
    ]


def test_a_server_that_is_not_there_is_not_ok() -> None:
    event = json.loads(probe({"a": ServerSpec(health_url="http://127.0.0.1:1/")}, NOON)[0])
    assert (event["type"], event["ok"], event["timestamp"]) == ("health", False, NOON.timestamp())
    assert event["error"] == "NewConnectionError"
