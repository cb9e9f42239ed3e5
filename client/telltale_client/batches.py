"""What is sent at once, and what can become of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, eq=False)
class Batch:
    """Some lines under one key, which stays the same however often they are sent.

    reported
        How many lost events the last line tells of; 0 where there is no such line.
    content_type
        What the lines are; a table is one of them.
    """

    lines: tuple[bytes, ...] = field(repr=False)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    reported: int = 0
    content_type: str = "application/x-ndjson"

    @property
    def body(self) -> bytes:
        """The lines, one below the other."""
        return b"\n".join(self.lines)

    @property
    def events(self) -> int:
        """How many events of the pod it holds."""
        return len(self.lines) - bool(self.reported)

    def part(self, places: Sequence[int]) -> Batch:
        """Some of its lines, in their order, as another batch."""
        told = self.reported if len(self.lines) - 1 in places else 0
        return Batch(tuple(self.lines[place] for place in places), reported=told)

    def halves(self) -> tuple[Batch, Batch]:
        """Two smaller ones, which are other batches than this one."""
        middle = len(self.lines) // 2
        return self.part(range(middle)), self.part(range(middle, len(self.lines)))


@dataclass(frozen=True)
class Receipt:
    """What a server says of a batch: how many lines it took, how many it put into its dead letters, and why."""

    accepted: int
    rejected: int = 0
    reason: str = ""


class UnavailableError(Exception):
    """Nobody took the batch in, or nobody said so: send it again.

    after
        Seconds that the server asked to wait; 0 where it did not.
    left
        What is still to be sent, where some of it certainly arrived.
    for_people
        It will not pass by itself, as a wrong key or address.
    """

    def __init__(
        self, message: str, after: float = 0.0, left: Batch | None = None, *, for_people: bool = False
    ) -> None:
        super().__init__(message)
        self.after = after
        self.left = left
        self.for_people = for_people


class RefusedError(Exception):
    """The batch will not be taken in, however often it is sent. ``too_large``: a smaller one may be."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class Transport(Protocol):
    """Takes batches somewhere. Used by one thread at a time."""

    def send(self, batch: Batch) -> Receipt:
        """Send a batch, and return when it is durable there. Raises UnavailableError, RefusedError."""

    def close(self) -> None:
        """Let go of connections. Another batch may follow all the same."""

    def abandon(self) -> None:
        """Forget connections that are the parent process's, without a word to the other side."""
