"""Messages to batches. A batch is a range of offsets of one partition; the same range is the same batch for ever."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from monitor.sources import Message, Place
from monitor.tables import one_after_another

NOTE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is closed, whichever comes first. Seconds count from when its first message was read."""

    rows: int = 50_000
    size: int = 16 * 1024 * 1024
    seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What a group has promised of a partition, beside the offset: the batch that begins there, and under which rules.

    log
        Identity of the log; offsets of another one mean nothing.
    end
        Last offset of the batch that was begun; None when none was.
    revision
        Of the configuration that decides what becomes of events.
    """

    log: str
    end: int | None = None
    revision: str = ""

    def to_note(self) -> str:
        """As the text that is committed.

        >>> Intent("5d2f", 41, "9a").to_note()
        '{"v":1,"log":"5d2f","end":41,"revision":"9a"}'
        """
        batch = {} if self.end is None else {"end": self.end, "revision": self.revision}
        return json.dumps({"v": NOTE_VERSION, "log": self.log, **batch}, separators=(",", ":"))


def read_intent(note: str) -> Intent | None:
    """The intent in a committed note; None for a note that is not ours.

    >>> read_intent(Intent("5d2f", 41, "9a").to_note()) == Intent("5d2f", 41, "9a"), read_intent("")
    (True, None)
    """
    try:
        held = json.loads(note)
        if held["v"] != NOTE_VERSION:
            return None
        return Intent(str(held["log"]), held.get("end"), held.get("revision", ""))
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one partition, from offset ``first`` to ``last``, both included.

    again
        It was begun before, by somebody who may not have ended it.
    log
        Identity of the log under which it was begun then; None where it is begun now.
    amended
        What is there of it must be removed first.
    """

    place: Place
    first: int
    last: int
    messages: Sequence[Message]
    again: bool = False
    log: str | None = None
    amended: bool = False

    @property
    def lines(self) -> Sequence[bytes]:
        """The lines of all messages, in order; tables among them stay such."""
        return one_after_another([message.lines for message in self.messages])

    @property
    def arrivals(self) -> list[float]:
        """When the broker got each line, in epoch seconds."""
        return [at for m in self.messages for at in [m.arrived_ms / 1000] * len(m.lines)]


@dataclass(slots=True)
class Buffer:
    """What was read of one partition and is not taken in yet.

    position
        Where the next batch begins: everything before it is taken in.
    begin
        The first offset that is still in the log; what is between it and the position was deleted unread.
    pending
        Last offset of a batch that was begun by somebody and may be taken in already; it must be formed again exactly,
        under the same name: ``pending_log`` is the log's identity in it.
    amended
        That batch would not become the same rows again, so what is there of it must be removed first.
    read_to
        Up to where was read when it was last looked at, also where that gave no message.
    complete_until
        All that arrived before this is taken in, as far as was known when something was last taken in.
    """

    place: Place
    position: int
    begin: int = 0
    pending: int | None = None
    pending_log: str | None = None
    amended: bool = False
    complete_until: datetime | None = None
    messages: deque[Message] = field(default_factory=deque)
    rows: int = 0
    size: int = 0
    since: float = 0.0
    read_to: int = 0
    _gap: tuple[int, int] | None = None

    @property
    def following(self) -> int:
        """The offset to be read next."""
        return self.messages[-1].offset + 1 if self.messages else max(self.position, self.begin)

    def look(self, read_to: int, end: int, at: datetime) -> datetime | None:
        """Up to when all is taken in, given how far was read and where the log ended at a time. None: not known yet.

        What was read and gave no message (the ends of transactions, for example) needs no taking in.
        """
        self.read_to = read_to
        if not self.messages and self.pending is None:
            self.position = max(self.position, read_to)
        if self.position >= end:
            self.complete_until = at
        elif self.messages:
            self.complete_until = _arrival(self.messages[0])
        return self.complete_until

    def add(self, messages: Sequence[Message], now: float) -> int | None:
        """Put messages behind those that are there. Gives the offset to read again from where some are lacking.

        Logs may lack offsets for good (transactions, compaction), and a reader that lost its place lacks them too.
        They are told apart by reading again: what lacks twice is not there.
        """
        following = self.following
        for message in messages:
            offset = message.offset
            if offset != following:
                if offset < following:
                    continue
                if self._gap != (following, offset):
                    self._gap = (following, offset)
                    return following
            if not self.messages:
                self.since = now
            self.messages.append(message)
            self.rows += len(message.lines)
            self.size += message.size
            following = offset + 1
        return None

    @property
    def is_short(self) -> bool:
        """Whether a part of the batch that must be formed again is not read yet. It may have been compacted away."""
        return self.pending is not None and max(self.following, self.read_to) <= self.pending

    def is_full(self, limits: Limits) -> bool:
        """Whether it holds more than the batch that is being taken in and the next one need."""
        if self.is_short:
            return False
        return self.rows >= 2 * limits.rows or self.size >= 2 * limits.size

    def next_batch(self, limits: Limits, now: float) -> Batch | None:
        """The next batch, if there is one to be closed. It stays in the buffer until ``drop``."""
        if self.pending is not None:
            if self.is_short:
                return None
            whole = [m for m in self.messages if m.offset <= self.pending]
            return Batch(
                self.place, self.position, self.pending, whole, again=True, log=self.pending_log, amended=self.amended
            )
        # Before it is known that there are enough, they are not looked at one by one, as this is asked at every poll.
        if not self.messages or not (self.closes(limits) or now - self.since >= limits.seconds):
            return None
        rows = size = 0
        chosen: list[Message] = []
        for message in self.messages:
            rows += len(message.lines)
            size += message.size
            if chosen and (rows > limits.rows or size > limits.size):
                return Batch(self.place, self.position, chosen[-1].offset, chosen)
            chosen.append(message)
        return Batch(self.place, self.position, chosen[-1].offset, chosen)

    def closes(self, limits: Limits) -> bool:
        """Whether there is enough for a batch as large as may be."""
        return self.rows >= limits.rows or self.size >= limits.size

    def drop(self, batch: Batch, now: float) -> None:
        """The batch is taken in."""
        taken = None
        while self.messages and self.messages[0].offset <= batch.last:
            taken = self.messages.popleft()
            self.rows -= len(taken.lines)
            self.size -= taken.size
        if taken is not None:
            self.complete_until = _arrival(taken)
        self.position = batch.last + 1
        self.pending = None
        self.since = now


def _arrival(message: Message) -> datetime:
    return datetime.fromtimestamp(message.arrived_ms / 1000, UTC)
