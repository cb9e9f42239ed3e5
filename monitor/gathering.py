"""Small batches that come at the same time are made durable at the same time. Each stays a batch of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from monitor.decode import Reject
from monitor.ingest import Ingest, Origin, Receipt
from monitor.store import StoreUnavailableError
from monitor.store.together import Together

MOST_LINES = 1000
"""A batch of more takes as long by itself as writing it does."""
MOST_BATCHES = 64
log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class _Sent:
    """A batch, and what becomes of it."""

    lines: Sequence[bytes]
    origin: Origin
    allowed: frozenset[str]
    refused: Sequence[Reject]
    outcome: Future[Receipt] = field(default_factory=Future)


class Gathering:
    """Takes batches in. While some are being written, those that come wait, and are then written together.

    Who comes alone waits for nobody. What a batch becomes, and how it is known when it is sent again, is as if it had
    come alone.
    """

    def __init__(self, store: Together, ingest: Ingest) -> None:
        self._store = store
        self._ingest = ingest
        self._turn = threading.Lock()
        self._waiting: deque[_Sent] = deque()

    def take(
        self,
        lines: Sequence[bytes],
        origin: Origin,
        allowed: frozenset[str] = frozenset(),
        refused: Sequence[Reject] = (),
    ) -> Receipt:
        """Take a batch in; returns when it is durable. Raises what ``Ingest.take`` does."""
        sent = _Sent(lines, origin, allowed, refused)
        self._waiting.append(sent)
        with self._turn:  # whose turn it is takes in what has come until then, others' too
            while not sent.outcome.done():
                self._take([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_BATCHES))])
        return sent.outcome.result()

    def _take(self, group: Sequence[_Sent]) -> None:
        if len(group) == 1 or not self._taken_at_once(group):
            for sent in group:
                try:
                    sent.outcome.set_result(self._take_one(sent))
                except BaseException as error:  # noqa: BLE001 - it is raised where the batch came from
                    sent.outcome.set_exception(error)

    def _taken_at_once(self, group: Sequence[_Sent]) -> bool:
        """Whether it is known what became of them."""
        try:
            with self._store.at_once():
                receipts = [self._take_one(sent) for sent in group]
        except StoreUnavailableError as error:  # each alone would wait for it as long
            for sent in group:
                sent.outcome.set_exception(StoreUnavailableError(str(error)))
        except BaseException as error:  # noqa: BLE001 - one of them may be at fault, and must not cost the others
            log.warning("batches taken in one by one, as they could not be at once", reason=str(error))
            return False
        else:
            for sent, receipt in zip(group, receipts, strict=True):
                sent.outcome.set_result(receipt)
        return True

    def _take_one(self, sent: _Sent) -> Receipt:
        return self._ingest.take(sent.lines, sent.origin, sent.allowed, sent.refused)
