"""What the ledger keeps, as plain values, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from alerts.retries import MessageKind


class LedgerError(Exception):
    """The ledger's database cannot be reached, or was lost: nothing of the transaction was written."""


class UnknownActionError(LookupError):
    """There is no such action."""


class WrongTokenError(PermissionError):
    """The token is not this action's."""


class BadCallbackError(ValueError):
    """A report on an action that does not say what it must."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something that happened. ``data`` holds what applies: server, features, version, reason, and so on."""

    id: int
    at: datetime
    event: str
    environment: str
    model: str
    data: Mapping[str, Any]

    def as_line(self) -> dict[str, Any]:
        """As a JSON line has it: time, event, model, environment, then the data that is there.

        >>> at = datetime(2026, 1, 31, 10, tzinfo=UTC)
        >>> entry = TimelineEntry(1, at, "drift_found", "production", "churn", {"features": ["age"], "server": ""})
        >>> list(entry.as_line().items())[3:]
        [('environment', 'production'), ('features', ['age'])]
        """
        present = {k: v for k, v in self.data.items() if v not in ("", None, [], ())}
        head = {"at": rfc3339(self.at), "event": self.event, "model": self.model, "environment": self.environment}
        return head | present


@dataclass(frozen=True, slots=True)
class Claim:
    """An owner's claim to judge a window: nobody else does, until its lease ends.

    kind
        What is judged of the window, and how long such windows are: ``traffic:3600s``. Each kind has its own claims.
    """

    environment: str
    model: str
    kind: str
    start: datetime
    end: datetime
    owner: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way to an endpoint. The body is sent byte for byte as it is here, at every attempt.

    action
        The action that a command asks for.
    expires_at
        A message must not be sent later. None: never too late.
    lease
        Tells this claim of the message from any other.
    """

    id: str
    kind: MessageKind
    endpoint: str
    environment: str
    model: str
    body: bytes = field(repr=False)
    action: str = ""
    expires_at: datetime | None = None
    attempts: int = 0
    lease: str = ""


def rfc3339(at: datetime) -> str:
    """A time in UTC with a Z.

    >>> rfc3339(datetime(2026, 1, 31, 10, 0, 0, 500, tzinfo=UTC))
    '2026-01-31T10:00:00.000500Z'
    """
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
