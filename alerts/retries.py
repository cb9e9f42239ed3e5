"""When to try again."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Literal

MessageKind = Literal["alert", "command"]

ALERT_WAITS = tuple(
    timedelta(seconds=s) for s in (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
)
"""Between the attempts of an alert, as Standard Webhooks suggests; the first attempt is made at once."""
COMMAND_WAITS = tuple(timedelta(seconds=s) for s in (5, 15, 45, 120))
"""Between the attempts of a command; the last one is repeated until the command expires."""
LONGEST_WAIT = timedelta(hours=24)
JITTER = 0.2


def next_attempt(
    kind: MessageKind, message_id: str, attempts: int, retry_after: timedelta, now: datetime
) -> datetime | None:
    """When to try a message again after so many attempts, no sooner than the receiver asks. None: never.

    Each wait is up to a fifth longer, by a hash of the message and the attempt, so that messages that failed together
    do not come back together.
    """
    wait = _wait(kind, attempts)
    if wait is None:
        return None
    digest = hashlib.sha256(f"{message_id}.{attempts}".encode()).digest()
    stretched = wait * (1 + JITTER * int.from_bytes(digest[:4]) / 2**32)
    return now + max(stretched, min(retry_after, LONGEST_WAIT))


def _wait(kind: MessageKind, attempts: int) -> timedelta | None:
    if kind == "command":
        return COMMAND_WAITS[min(attempts, len(COMMAND_WAITS)) - 1]
    return ALERT_WAITS[attempts - 1] if attempts <= len(ALERT_WAITS) else None
