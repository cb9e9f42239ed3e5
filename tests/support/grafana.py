"""What Grafana and its ClickHouse plugin make of a dashboard's SQL, and a stand-in for Grafana's HTTP API."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?::(\w+))?\}")
MACRO = re.compile(r"\$__(\w+)(?:\(([^()]*)\))?")
TOKEN = "glsa_right"  # noqa: S105 - of the stand-in only


def as_run(sql: str, variables: Mapping[str, Sequence[str]], start: datetime, end: datetime, every: timedelta) -> str:
    """SQL as ClickHouse gets it: first Grafana fills in the variables, then the plugin its macros."""

    def values(found: re.Match[str]) -> str:
        known = variables.get(found[1] or found[2] or found[4])
        return found[0] if known is None else ",".join("'" + v.replace("'", "\\'") + "'" for v in known)

    def expanded(found: re.Match[str]) -> str:
        first, last = (f"fromUnixTimestamp64Milli({int(t.timestamp() * 1000)})" for t in (start, end))
        millis, column = int(every.total_seconds() * 1000), found[2]
        made = {
            "timeFilter_ms": f"{column} >= {first} AND {column} <= {last}",
            "timeInterval_ms": f"toStartOfInterval(toDateTime64({column}, 3), INTERVAL {millis} millisecond)",
            "toTime_ms": last,
            "interval_s": str(max(millis // 1000, 1)),
        }
        return made[found[1]]

    return MACRO.sub(expanded, VARIABLE.sub(values, sql))


class GrafanaStub:
    """Folders, data sources and dashboards behind ``/api``, with the answers that Grafana documents.

    ``requests`` holds what was asked, as (method, path).
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.url = ""
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.folder_of: dict[str, str] = {}
        self.healthy = True
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], tuple[int, Any] | None] = lambda *_: None
        """May answer in place of the stand-in."""
        self._ids = 0

    def answer(self, method: str, path: str, token: str, body: Any) -> tuple[int, Any]:
        self.requests.append((method, path))
        if early := self.before(method, path):
            return early
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key"}
        parts = path.removeprefix(f"{self.prefix}/api/").split("/")
        match method, *parts:
            case "GET", "folders", uid:
                return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
            case "POST", "folders":
                return self._make_folder(body)
            case "GET", "datasources", "uid", uid:
                return (200, self.sources[uid]) if uid in self.sources else (404, {"message": "Data source not found"})
            case "GET", "datasources", "uid", uid, "health":
                return self._health(uid)
            case "POST", "datasources":
                return self._make_source(body)
            case "GET", "dashboards", "uid", uid:
                return self._show(uid)
            case "POST", "dashboards", "db":
                return self._save(body)
        return 404, {"message": "Not found"}

    def _make_folder(self, body: Any) -> tuple[int, Any]:
        if body["uid"] in self.folders:
            return 412, {"message": "The folder has been changed by someone else", "status": "version-mismatch"}
        if body["title"] in [f["title"] for f in self.folders.values()]:
            return 409, {"message": "a folder with the same name already exists in the current location"}
        self.folders[body["uid"]] = {"id": self._new_id(), "version": 1, **body}
        return 200, self.folders[body["uid"]]

    def _health(self, uid: str) -> tuple[int, Any]:
        if uid not in self.sources:
            return 404, {"message": "Data source not found"}
        return (200, {"status": "OK"}) if self.healthy else (400, {"status": "ERROR", "message": "connection refused"})

    def _make_source(self, body: Any) -> tuple[int, Any]:
        if body["name"] in [s["name"] for s in self.sources.values()]:
            return 409, {"message": "data source with the same name already exists"}
        self.sources[body["uid"]] = {"id": self._new_id(), **body}
        return 200, {"message": "Datasource added", "datasource": self.sources[body["uid"]]}

    def _show(self, uid: str) -> tuple[int, Any]:
        if uid not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        return 200, {"dashboard": self.dashboards[uid], "meta": {"folderUid": self.folder_of[uid], "slug": uid}}

    def _save(self, body: Any) -> tuple[int, Any]:
        sent = body["dashboard"]
        uid, there = sent["uid"], self.dashboards.get(sent["uid"])
        folder = body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        if there is not None and not body.get("overwrite") and sent.get("version") != there["version"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        for other in self.dashboards.values():
            alike = (other["title"], self.folder_of[other["uid"]]) == (sent["title"], folder)
            if there is None and alike and not body.get("overwrite"):
                message = "A dashboard with the same name in the folder already exists"
                return 412, {"message": message, "status": "name-exists"}
        number, version = (there["id"], there["version"] + 1) if there else (self._new_id(), 1)
        self.dashboards[uid] = {**sent, "id": number, "version": version}
        self.folder_of[uid] = folder
        return 200, {"id": number, "uid": uid, "status": "success", "version": version, "url": f"/d/{uid}"}

    def _new_id(self) -> int:
        self._ids += 1
        return self._ids


@contextmanager
def grafana_stub(prefix: str = "") -> Iterator[GrafanaStub]:
    """A stand-in that listens on loopback."""
    stub = GrafanaStub(prefix)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "")
            status, body = stub.answer(self.command, self.path, token, json.loads(text) if text else None)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/login")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the server's names

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
