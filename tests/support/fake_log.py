"""A partitioned log with consumer groups, in memory: as strict about generations as the real one, and steppable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from monitor.ingest import Origin
from monitor.intake import Progress
from monitor.sources import Mark, Message, Place, SourceError


class FakeLog:
    """The log of one topic, and the one group that reads it."""

    def __init__(self, partitions: int, identity: str = "first") -> None:
        self.identity = identity
        self.messages: dict[Place, list[Message]] = {Place("t", p): [] for p in range(partitions)}
        self.first: dict[Place, int] = defaultdict(int)
        self.silent: dict[Place, int] = defaultdict(int)
        """Offsets at the end that give no message, such as the marks of transactions."""
        self.marks: dict[Place, Mark] = {}
        self.members: list[FakeSource] = []
        self.generation = 0

    def append(self, place: Place, *lines: bytes, skip: int = 0) -> None:
        offset = self.end(place) + skip
        self.silent[place] = 0
        self.messages[place].append(Message(offset, 1_700_000_000_000 + offset, lines, sum(map(len, lines))))

    def end(self, place: Place) -> int:
        last = self.messages[place][-1].offset + 1 if self.messages[place] else self.first[place]
        return last + self.silent[place]

    def cut(self, place: Place, first: int) -> None:
        """Retention: what is before an offset is deleted."""
        self.first[place] = first
        self.messages[place] = [m for m in self.messages[place] if m.offset >= first]

    def join(self, **quirks: Any) -> FakeSource:
        member = FakeSource(self, **quirks)
        self.members.append(member)
        self.rebalance()
        return member

    def leave(self, member: FakeSource) -> None:
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        self.generation += 1

    def share(self, member: FakeSource) -> set[Place]:
        places = sorted(self.messages)
        turn = self.members.index(member)
        return {
            p for i, p in enumerate(places) if i % len(self.members) == (turn + self.generation) % len(self.members)
        }


class FakeSource:
    """A member. It learns of a rebalance when it polls, as real ones do, and keeps its old positions, as they do."""

    def __init__(self, log: FakeLog, *, deaf_to_seek: bool = False, most: int = 7) -> None:
        self._log = log
        self._deaf_to_seek = deaf_to_seek
        self._most = most
        self._generation = -1
        self._places: set[Place] = set()
        self._positions: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.rebalances = 0
        self.refuses = False

    def poll(self, _seconds: float) -> Mapping[Place, Sequence[Message]]:
        log = self._log
        if self not in log.members:  # put out of the group for being silent; it joins again
            log.members.append(self)
            log.rebalance()
        if self._generation != log.generation:
            self._generation = log.generation
            self._places = log.share(self)
            self.rebalances += 1
            for place in self._places:
                mark = log.marks.get(place, Mark(log.first[place]))
                self._positions.setdefault(place, mark.offset)
        polled = {}
        for place in self._places - self.paused:
            ahead = [m for m in log.messages[place] if m.offset >= self._positions[place]][: self._most]
            if ahead:
                polled[place] = ahead
                self._positions[place] = ahead[-1].offset + 1
            else:
                self._positions[place] = max(self._positions[place], log.end(place))
        return polled

    def assignment(self) -> Collection[Place]:
        return set(self._places)

    def identity(self, _place: Place) -> str:
        return self._log.identity

    def bounds(self, place: Place) -> tuple[int, int]:
        return self._log.first[place], self._log.end(place)

    def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        return {place: self._log.end(place) for place in places}

    def position(self, place: Place) -> int:
        return self._positions[place]

    def mark(self, place: Place) -> Mark | None:
        return self._log.marks.get(place)

    def commit(self, marks: Mapping[Place, Mark]) -> None:
        if self.refuses or self not in self._log.members or self._generation != self._log.generation:
            raise SourceError("another generation")
        self._log.marks.update(marks)

    def seek(self, place: Place, offset: int) -> None:
        if not self._deaf_to_seek:
            self._positions[place] = offset

    def pause(self, place: Place) -> None:
        self.paused.add(place)

    def resume(self, place: Place) -> None:
        self.paused.discard(place)

    def close(self) -> None:
        self._log.leave(self)


class Later(Executor):
    """Runs what it was given when it is told to, so that anything can happen before."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Any]] = []

    def submit(self, work: Any, /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: work(*args, **named)))
        return future

    def run(self) -> bool:
        """Do what waits; whether there was anything."""
        waiting, self._waiting = self._waiting, []
        for future, work in waiting:
            future.set_result(work())
        return bool(waiting)

    def shutdown(self, *_: object, **__: object) -> None:
        self._waiting.clear()


class Shelf:
    """Takes batches in as the store does: the same key again replaces, and rows and profiles are two steps."""

    def __init__(self) -> None:
        self.revision = "r1"
        self.rows: dict[tuple[str, str, int], bytes] = {}
        self.profiles: dict[tuple[str, str], int] = {}
        self.failures = 0
        self.die_between = False
        self.progress: Sequence[Progress] = ()

    def report_progress(self, progress: Sequence[Progress]) -> None:
        self.progress = progress

    def take_batch(self, lines: Sequence[bytes], origin: Origin) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the store is away")
        for number, line in enumerate(lines):
            self.rows[origin.source, origin.batch, number] = line
        if self.die_between:
            raise KeyboardInterrupt
        self.profiles[origin.source, origin.batch] = len(lines)

    def forget_batch(self, origin: Origin) -> None:
        self.rows = {k: v for k, v in self.rows.items() if k[:2] != (origin.source, origin.batch)}
        self.profiles.pop((origin.source, origin.batch), None)
