"""Findings, traffic and receivers for tests of the alerts room."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from alerts.action import Action, ActionState
from alerts.actions.rollback import Rollback
from alerts.delivery import send
from alerts.desk import Desk, ModelRules
from alerts.ledger import Ledger
from alerts.notifiers.webhook import Webhook
from alerts.policy import Policy
from alerts.post import Send
from detectors.finding import Finding, Status, Subject, Window

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
LOOPBACK = ("127.0.0.0/8",)
RULES = ModelRules("production", "churn", false_alarms_per_week=1.0, shortest_window=HOUR)
KEY_TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def window(number: int) -> Window:
    return Window("production", "churn", BEGIN + number * HOUR, BEGIN + (number + 1) * HOUR)


def finding(
    detector: str,
    number: int = 0,
    *,
    p: float | None = None,
    severity: float = 2.0,
    baseline: str = "reference:training",
    status: Status = Status.MEASURED,
    value: float | None = 0.1,
    low: float | None = None,
    effects: Mapping[str, float] | None = None,
    message: str = "",
    without: tuple[str, ...] = (),
    component: str = "",
    n: int = 1000,
    **subject: str,
) -> Finding:
    return Finding(
        window(number),
        Subject(**subject, without=without),
        detector,
        baseline,
        status,
        value,
        low,
        p_value=p,
        n=n,
        component=component,
        severity=severity,
        effects=effects or {},
        message=message,
    )


def accuracy_drop(number: int, value: float, version: str = "2", error: float = 0.01) -> Finding:
    return finding(
        "accuracy_drop",
        number,
        p=0.5,
        baseline="version:1",
        value=value,
        effects={"standard_error": error},
        version=version,
    )


def action(state: ActionState = "requested", at: datetime = BEGIN, **changes: Any) -> Action:
    """A rollback of version 2 to version 1, requested at a time."""
    requested = Action(
        id="act_1",
        name="back",
        policy="worse",
        incident="i",
        environment="production",
        model="churn",
        version="2",
        target="1",
        accused_share=0.5,
        state=state,
        dry_run=state == "dry_run",
        requested_at=at,
        expires_at=at + timedelta(minutes=15),
        effect_within=timedelta(minutes=15),
        effect_share=0.99,
        settle=timedelta(minutes=5),
        token_hash="",
    )
    return replace(requested, **changes)


@dataclass
class FakeTraffic:
    """Rows a minute by version and server, each set from some time on."""

    changes: list[tuple[datetime, Mapping[str, Mapping[str, int]]]] = field(default_factory=list)

    def serve(self, since: datetime, **rows: Mapping[str, int]) -> None:
        """From now on ``v1={"a": 50}`` has 50 rows a minute of version 1 on server a."""
        self.changes.append((since, {name.removeprefix("v"): servers for name, servers in rows.items()}))

    def served(self, environment: str, model: str, since: datetime, until: datetime) -> Mapping[str, Mapping[str, int]]:
        assert (environment, model) == ("production", "churn")
        total: dict[str, dict[str, int]] = {}
        for i, (start, rows) in enumerate(self.changes):
            end = self.changes[i + 1][0] if i + 1 < len(self.changes) else until
            minutes = max((min(end, until) - max(start, since)) // timedelta(minutes=1), 0)
            for version, servers in rows.items():
                for server, count in servers.items():
                    if count * minutes:
                        counts = total.setdefault(version, {})
                        counts[server] = counts.get(server, 0) + count * minutes
        return total


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


@dataclass
class Script:
    """How to answer: a status, headers and a body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Receiver:
    """A real HTTP server on loopback. Answers by the script, whose last line is repeated."""

    def __init__(self, *script: Script, on_request: Callable[[], None] = lambda: None) -> None:
        self.script = list(script) or [Script()]
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                on_request()
                answer = receiver.script.pop(0) if len(receiver.script) > 1 else receiver.script[0]
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.02])

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that talks as it likes, once; the port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


@contextmanager
def ledger_at(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    ledger.create()
    try:
        yield ledger
    finally:
        ledger.close()


def webhook(url: str, folder: Path, **settings: Any) -> Webhook:
    secret = folder / "secret"
    secret.write_text(KEY_TEXT)
    return Webhook("webhook", url, secret_file=str(secret), **{"allow_networks": LOOPBACK, **settings})


@dataclass
class Office:
    """A desk with all that it needs."""

    ledger: Ledger
    traffic: FakeTraffic
    desk: Desk

    def events(self) -> list[str]:
        return [e.event for e in self.ledger.timeline()]

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [e.as_line() for e in self.ledger.timeline() if e.event == event]


def office(
    ledger: Ledger,
    *policies: Policy,
    notifiers: Mapping[str, Webhook] | None = None,
    actions: Mapping[str, Rollback] | None = None,
    send: Send = send,
    callback_base: str = "",
) -> Office:
    traffic = FakeTraffic()
    desk = Desk(ledger, policies, notifiers or {}, actions or {}, traffic, callback_base, send)
    return Office(ledger, traffic, desk)


def take(office: Office, number: int, findings: Sequence[Finding]) -> None:
    """The findings of a window, five minutes after it."""
    office.desk.take(window(number).end + timedelta(minutes=5), RULES, findings, HOUR)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run work(0), work(1), ... at once."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=run, args=[i]) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
