"""A log in memory that the auditor can read again, and batches of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from monitor.audit import Auditor, Read
from monitor.batches import Batch, Limits
from monitor.ingest import Origin
from monitor.service import Service
from monitor.sources import Message, Place, SourceError

NAME = "kafka/t/0/x"


class Log:
    """One partition: each message is one line, which arrived at a time; ``None`` is an offset without a message."""

    def __init__(self, messages: Sequence[tuple[bytes, datetime] | None]) -> None:
        self.messages = list(messages)
        self.is_gone = False
        self.opened = 0
        self.reads: list[tuple[int, int]] = []

    def read(self, first: int, last: int) -> list[Message]:
        """The messages of a range of offsets, both ends included."""
        held = enumerate(self.messages[first : last + 1], first)
        return [Message(at, int(m[1].timestamp() * 1000), [m[0]], len(m[0])) for at, m in held if m is not None]

    @contextmanager
    def open(self) -> Iterator[Read]:
        """As the auditor opens logs."""
        self.opened += 1

        def read(_source: str, first: int, last: int) -> Iterator[Message]:
            self.reads.append((first, last))
            if self.is_gone:
                raise SourceError("its messages were deleted")
            return iter(self.read(first, last))

        yield read

    def take(self, service: Service, first: int, last: int, taken: datetime | None = None) -> None:
        """Have a batch taken in, as the intake does."""
        batch = Batch(Place("t", 0), first, last, self.read(first, last))
        arrivals = batch.arrivals
        service.take_batch(batch.lines, Origin(NAME, str(first), datetime_of(max(arrivals)), arrivals, last, taken))

    def auditor(self, service: Service, limits: Limits = Limits()) -> Auditor:  # noqa: B008 - it is frozen
        """An auditor that can read this log."""
        return Auditor(service.store, service.registry, service.references, service.ingest, self.open, limits)


def datetime_of(seconds: float) -> datetime:
    """Epoch seconds in UTC."""
    from datetime import UTC

    return datetime.fromtimestamp(seconds, UTC)
