"""Ways to tell someone. A file per kind; its name is the ``kind`` in the configuration. See ``alerts.kinds``."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from alerts.transport import Request

LONGEST_TIMEOUT_SECONDS = 60


class CannotSendError(ValueError):
    """A notifier cannot send a message as things are. Says why."""


class SecretError(CannotSendError):
    """A secret cannot be read. Names the place, never the secret."""


class Notifier(Protocol):
    """What every kind of notifier has.

    carries_out_actions
        Whether its receiver can do what an action asks for.
    forgets
        Whether its receiver takes for over what it is not told of again, so that it has to be.
    """

    carries_out_actions: ClassVar[bool]
    forgets: ClassVar[bool]

    @property
    def address(self) -> str:
        """Tells one receiver from another without showing its URL."""

    def request(self, message_id: str, body: bytes, now: datetime) -> Request:
        """One attempt to deliver a message. Raises CannotSendError."""


def address_of(url: str) -> str:
    """Tells one URL from another without showing it."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def check_receiver(url: str, allow_networks: Sequence[str], timeout_seconds: float) -> None:
    """Raises ValueError that says what is wrong, without the URL."""
    _check_url(url)
    for network in allow_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"allow_networks: {error}; write one such as 10.0.0.0/8") from None
    if not 0 < timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
        raise ValueError(f"timeout_seconds must be above 0 and at most {LONGEST_TIMEOUT_SECONDS}")


def read_secret(env: str | None, file: str | None) -> tuple[str, str]:
    """A secret as it is now, and its place in words. Raises SecretError."""
    if env is not None:
        place, text = f"the environment variable {env}", os.environ.get(env, "")
    else:
        place, text = f"the file {file}", _read(file or "")
    if not text:
        raise SecretError(f"{place} should hold a secret; it is empty or not there")
    return text, place


def _check_url(url: str) -> None:
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
        raise ValueError("url must hold no user name or password; name a file or environment variable with the secret")


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
