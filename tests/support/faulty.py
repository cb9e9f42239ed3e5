"""A service for clients, and a gateway in front of it that fails on purpose."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from given import ServiceMaker, StillClock

from monitor.running import listening, serve
from monitor.service import Service
from telltale_client import Logger, shipping

CUT = b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"accepted"'
SLOW_SECONDS = 0.6


@dataclass(frozen=True)
class Telltale:
    """A service and where it listens."""

    service: Service
    url: str

    def rows(self, table: str = "predictions") -> int:
        rows: int = self.service.store.select(f"SELECT count() AS n FROM {table} FINAL")["n"][0]  # noqa: S608 - a test's
        return rows

    def select(self, sql: str) -> list[dict[str, Any]]:
        return self.service.store.select(sql).to_dicts()


class Gateway:
    """Hands requests on, but for the next faults.

    A fault is a status to answer with; ``"reset"`` or ``"cut"``, which lose the answer after the service has taken the
    batch; ``"slow"``, which is late with it; or ``"hang up"``, which closes the connection after a whole answer.
    """

    def __init__(self, behind: str, port: int = 0) -> None:
        self.behind = behind
        self.faults: deque[int | str | None] = deque()
        self.keys: list[str] = []
        self.bodies: list[bytes] = []
        self.authorizations: list[str | None] = []
        self.connections = 0
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                gateway.connections += 1
                super().setup()

            def do_POST(self) -> None:
                gateway.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on. What comes as something else is closed without a word."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake is wanted

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.keys.append(request.headers["Idempotency-Key"])
        self.authorizations.append(request.headers["Authorization"])
        self.bodies.append(body)
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            self._send(request, fault, b'{"detail": "on purpose"}')
            return
        status, answer = self._handed_on(request, body)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "cut":
            request.wfile.write(CUT)
        if fault == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault not in ("cut", "reset"):
            self._send(request, status, answer)
        request.close_connection = fault in ("cut", "reset", "hang up")

    def _handed_on(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        parts = urllib.parse.urlsplit(self.behind)
        with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as onward:
            onward.request("POST", request.path, body, {"Idempotency-Key": request.headers["Idempotency-Key"]})
            response = onward.getresponse()
            return response.status, response.read()

    def _send(self, request: http.server.BaseHTTPRequestHandler, status: int, answer: bytes) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        with contextlib.suppress(OSError):  # the client may have gone
            request.wfile.write(answer)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def gateway_to(url: str, port: int = 0) -> Iterator[Gateway]:
    gateway = Gateway(url, port)
    try:
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def telltale(make_service: ServiceMaker, clock: StillClock) -> Iterator[Telltale]:
    """A service on loopback that goes by the real time, as pods do."""
    clock.at = datetime.now(UTC)
    with listening("127.0.0.1", 0) as (listener, url):
        service = make_service()
        with serve(service, listener, url):
            yield Telltale(service, url)


@pytest.fixture
def gateway(telltale: Telltale) -> Iterator[Gateway]:
    with gateway_to(telltale.url) as gateway:
        yield gateway


@pytest.fixture
def make_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Logger]]:
    """Makes loggers of model ``m``, version 1, on pod-1, that do not wait long, and closes them."""
    monkeypatch.setattr(shipping, "LINGER_SECONDS", 0.2)
    monkeypatch.setattr(shipping, "FIRST_PAUSE_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Logger:
            logger = Logger("m", "1", **{"server": "pod-1", **settings})
            stack.callback(logger.close, 1.0)
            return logger

        yield make
