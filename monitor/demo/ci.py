"""A stand-in for CI: takes signed requests, checks the signature, puts the old version back, and reports."""

from __future__ import annotations

import http.server
import queue
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
import urllib3

from alerts.signing import SignatureError, secret_bytes, verify


class Ci:
    """Listens for webhooks on loopback. What it refused is in ``refused``.

    Its clock is the demo's, as signatures are dated in demo time.
    """

    def __init__(self, secret: str, now: Callable[[], datetime], deploy: Callable[[str, str], None]) -> None:
        self.refused: list[str] = []
        self._secret = secret_bytes(secret)
        self._now = now
        self._deploy = deploy
        self._reports: queue.SimpleQueue[tuple[str, str, str] | None] = queue.SimpleQueue()
        ci = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = ci._receive(dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks/telltale"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="ci", daemon=True),
            threading.Thread(target=self._report, name="ci reports", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._reports.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _receive(self, headers: dict[str, str], body: bytes) -> int:
        try:
            verify(self._secret, headers, body, self._now())
        except SignatureError as error:
            self.refused.append(str(error))
            return 401
        message = orjson.loads(body)
        data = message["data"]
        if message["type"] == "telltale.rollback.requested" and not data["dry_run"]:
            callback = data["callback"]
            self._reports.put((callback["url"], callback["token"], "started"))
            self._deploy(data["version_accused"], data["version_target"])
            self._reports.put((callback["url"], callback["token"], "succeeded"))
        return 202

    def _report(self) -> None:
        with urllib3.PoolManager(retries=False, timeout=30) as pool:
            while (report := self._reports.get()) is not None:
                url, token, state = report
                headers = {"Authorization": f"Bearer {token}"}
                pool.request("POST", url, body=orjson.dumps({"state": state}), headers=headers)
