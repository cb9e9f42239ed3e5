"""Prometheus Alertmanager, by its API v2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from alerts.notifiers import CannotSendError, SecretError, address_of, check_receiver, read_secret
from alerts.transport import Request

FIRES_FOR = timedelta(minutes=15)
"""How long an alert goes on when it is not sent again: so long may Telltale be away before its alerts seem over."""
PATH = "/api/v2/alerts"
FIRING, RESOLVED = "telltale.alert.firing", "telltale.alert.resolved"


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """Sends alerts to one Alertmanager; where several form a cluster, each needs a notifier of its own.

    An incident is one alert there: its labels say which policy speaks of what place and never change, the
    rest is annotations. A firing alert is sent with an end ``FIRES_FOR`` ahead, and again about every minute (see
    ``Desk.refresh``), because Alertmanager ends what it no longer hears of, and forgets alerts when it restarts. A
    resolved one is sent with the time at which the incident ended.

    Alertmanager carries nothing out, so no action can use it.

    url
        http or https, such as ``http://10.0.0.7:9093``, with its path prefix if it has one.
    bearer_file, bearer_env
        Where the token is for a proxy that asks for ``Authorization: Bearer``, one of both. Read at every attempt.
    page_url
        Telltale's page as people reach it: the source that Alertmanager links to.
    allow_networks
        Networks such as ``10.0.0.0/8`` that the host may be in although they are not public.
    timeout_seconds
        For the whole attempt.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    carries_out_actions: ClassVar[bool] = False
    forgets: ClassVar[bool] = True

    kind: Literal["alertmanager"]
    url: str = field(repr=False)
    bearer_file: str | None = None
    bearer_env: str | None = None
    page_url: str = ""
    allow_networks: tuple[str, ...] = ()
    timeout_seconds: float = 15

    def __post_init__(self) -> None:
        check_receiver(self.url, self.allow_networks, self.timeout_seconds)
        if "?" in self.url or "#" in self.url or urlsplit(self.url).path.rstrip("/").endswith(PATH):
            raise ValueError(f"url must be that of Alertmanager itself, such as http://10.0.0.7:9093, without {PATH}")
        if self.bearer_file is not None and self.bearer_env is not None:
            raise ValueError("needs bearer_file or bearer_env, not both")
        if self.page_url and not self.page_url.startswith(("http://", "https://")):
            raise ValueError("page_url must begin with http:// or https://")

    @property
    def address(self) -> str:
        """Tells one URL from another without showing it."""
        return address_of(self.url)

    def request(self, message_id: str, body: bytes, now: datetime) -> Request:  # noqa: ARG002 - its labels name an alert
        """One attempt to deliver a message about an alert. Raises CannotSendError."""
        message = json.loads(body)
        if message["type"] not in (FIRING, RESOLVED):
            raise CannotSendError(f"Alertmanager takes alerts only, not {message['type']}")
        headers = {"content-type": "application/json", "user-agent": "telltale"}
        if self.bearer_file is not None or self.bearer_env is not None:
            headers["authorization"] = f"Bearer {self._token()}"
        alerts = json.dumps([self._alert(message, now)], separators=(",", ":")).encode()
        return Request(self.url.rstrip("/") + PATH, headers, alerts, self.timeout_seconds, self.allow_networks)

    def _alert(self, message: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        data, at = message["data"], message["timestamp"]
        ends = (now + FIRES_FOR).isoformat()
        span = {"startsAt": at, "endsAt": ends} if message["type"] == FIRING else {"endsAt": at}
        alert = {"labels": _labels(data), "annotations": _annotations(data), **span}
        return alert | ({"generatorURL": self.page_url} if self.page_url else {})

    def _token(self) -> str:
        token, place = read_secret(self.bearer_env, self.bearer_file)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise SecretError(f"{place} should hold a token of printable ASCII without blanks")
        return token


def _labels(data: Mapping[str, Any]) -> dict[str, str]:
    """Only what is the same in all messages about an incident."""
    labels = {
        "alertname": "Telltale" + data["watch"].title().replace("_", ""),
        "severity": "page",  # notices are not sent
        **{name: data[name] for name in ("policy", "watch", "model", "environment")},
        **data["subject"],
    }
    return {name: value for name, value in labels.items() if value}


def _annotations(data: Mapping[str, Any]) -> dict[str, str]:
    annotations = {
        "summary": data["summary"],
        "features": ", ".join(data["features"]),
        "baseline_version": data["baseline_version"],
        "value": "" if data["value"] is None else f"{data['value']:g}",
        "incident": data["id"],
    }
    return {name: value for name, value in annotations.items() if value}
