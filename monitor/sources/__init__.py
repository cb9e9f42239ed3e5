"""Logs that can be read again from any place: what the intake needs of them. Each kind is one file beside this one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class SourceError(Exception):
    """The source refused or could not be reached. Whoever reads it opens it anew."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(slots=True)
class Message:
    """One message: where it stands, when the broker has it from (milliseconds since 1970), and its lines.

    size
        Bytes that its lines take in memory, or would take if they were written.
    """

    offset: int
    arrived_ms: int
    lines: Sequence[bytes]
    size: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What a group has committed of a partition: the offset to go on from, and a note beside it."""

    offset: int
    note: str = ""


class Source(Protocol):
    """A member of a group that reads partitioned logs. Used by one thread."""

    @property
    def rebalances(self) -> int:
        """How often partitions were given or taken. Whoever sees it grow must read the marks again and seek."""

    def poll(self, seconds: float) -> Mapping[Place, Sequence[Message]]:
        """New messages, in order, at most so many seconds later. Also what keeps the membership alive."""

    def assignment(self) -> Collection[Place]:
        """The partitions that are this member's."""

    def identity(self, place: Place) -> str:
        """Names the log for ever: a topic that is deleted and made again has another."""

    def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset that is still there, and the one that the next message will get."""

    def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offset that the next message of each partition will get."""

    def position(self, place: Place) -> int:
        """The offset up to which was read, also where that gave no messages."""

    def mark(self, place: Place) -> Mark | None:
        """What the group has committed."""

    def commit(self, marks: Mapping[Place, Mark]) -> None:
        """Commit, and return when it is done. Raises SourceError when it is not, or may not be."""

    def seek(self, place: Place, offset: int) -> None:
        """Go on from here."""

    def pause(self, place: Place) -> None:
        """Give no messages of a partition until it is resumed."""

    def resume(self, place: Place) -> None:
        """Give messages of a partition again."""

    def close(self) -> None:
        """Leave the group."""
