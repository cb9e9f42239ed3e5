"""A signed HTTP request, as Standard Webhooks has it."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from alerts.signing import secret_bytes, signed_headers
from alerts.transport import Request

LONGEST_TIMEOUT_SECONDS = 60


class SecretError(ValueError):
    """A secret cannot be read. Names the place, never the secret."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Sends messages to a URL. Redirects are not followed, and only 2xx counts as received.

    url
        http or https. It may itself be a secret, so it is never shown whole.
    secret_file, secret_env
        Where the signing secret is, one of both: ``whsec_`` and base64, or any text. Read at every attempt.
    allow_networks
        Networks such as ``10.0.0.0/8`` that the host may be in although they are not public.
    timeout_seconds
        For the whole attempt.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["webhook"]
    url: str = field(repr=False)
    secret_file: str | None = None
    secret_env: str | None = None
    allow_networks: tuple[str, ...] = ()
    timeout_seconds: float = 15

    def __post_init__(self) -> None:
        _check_url(self.url)
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("needs either secret_file or secret_env")
        for network in self.allow_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"allow_networks: {error}; write one such as 10.0.0.0/8") from None
        if not 0 < self.timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
            raise ValueError(f"timeout_seconds must be above 0 and at most {LONGEST_TIMEOUT_SECONDS}")

    @property
    def address(self) -> str:
        """Tells one URL from another without showing it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def request(self, message_id: str, body: bytes, now: datetime) -> Request:
        """One attempt to deliver a message. Raises SecretError."""
        headers = {"content-type": "application/json", "user-agent": "telltale"}
        headers |= signed_headers(self._secret(), message_id, now, body)
        return Request(self.url, headers, body, self.timeout_seconds, self.allow_networks)

    def _secret(self) -> bytes:
        if self.secret_env is not None:
            place, text = f"the environment variable {self.secret_env}", os.environ.get(self.secret_env, "")
        else:
            place, text = f"the file {self.secret_file}", _read(self.secret_file or "")
        if not text:
            raise SecretError(f"{place} should hold a secret; it is empty or not there")
        try:
            return secret_bytes(text)
        except ValueError as error:
            raise SecretError(f"{place}: {error}") from None


def _check_url(url: str) -> None:
    """Raises ValueError, without the URL."""
    try:
        parts = urlsplit(url)
        port_is_right = parts.port != 0
    except ValueError:
        port_is_right = False
    if not port_is_right or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url must be plain ASCII without blanks, with a port from 1 to 65535 if any")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("url must hold no user name or password; messages are signed instead")


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
