"""Chunks of files: two files may begin alike, one may have grown since it was imported, and another be an older copy.

A chunk is taken in as one batch. Of one that has grown, the lines that were there keep their batch, and the rest is
another one: a batch must not get more lines once a sum stands for it, see ``monitor/folding.py``.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import json
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from monitor.decode import Reject
from monitor.folding import sealed_hours_of
from monitor.ingest import Origin, Receipt
from monitor.store import StoreUnavailableError

if TYPE_CHECKING:
    from monitor.service import Service

FILE = "file"
SEEN_AGAIN = timedelta(days=1)
"""What is imported again after so long is kept for as long again."""
WAIT_SECONDS = 70.0
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Chunk:
    """A part of a file.

    written
        Its lines as they are in the file; the last one is empty unless it is not ended yet.
    lines
        Those of the contract that they stand for.
    records
        Of each of these, in order, which line of the file it is from.
    refused
        Of ``lines``, which could not be made; they are empty.
    """

    written: Sequence[bytes]
    lines: Sequence[bytes]
    records: Sequence[int]
    refused: Sequence[Reject] = ()

    @classmethod
    def of_lines(cls, lines: Sequence[bytes]) -> Chunk:
        """Lines of the contract."""
        return cls(lines, lines, range(len(lines)))

    @classmethod
    def of_table(cls, raw: bytes, rows: Sequence[bytes]) -> Chunk:
        """A table, which does not grow: it is like one line."""
        return cls([raw, b""], rows, [0] * len(rows))


@dataclass(frozen=True)
class _Piece:
    """Lines of a chunk that belong to one batch.

    is_copy
        That batch has these lines and more, and is there. Or it is half a line of an older copy.
    accepted
        How many events it has, where nothing of it was refused and it is there as it would be if taken in again.
    """

    batch: str
    start: int
    end: int
    is_copy: bool = False
    accepted: int | None = None


class Imports:
    """Takes chunks of files in."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = threading.Lock()

    def take(self, key: str, chunk: Chunk, allowed: frozenset[str] = frozenset()) -> Receipt:
        """Take a chunk in that begins at the place in a file that ``key`` names; returns when it is durable.

        One after the other, as what a chunk adds depends on what is there. Raises StoreUnavailableError while another
        process takes in chunks of the same file.
        """
        with self._alone(key):
            return self._take(key, chunk, allowed)

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        with self._turn:
            if self._service.config.store.clickhouse is None:  # nobody else can write to the store
                yield
                return
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                with self._service.may_import(_hash(key)[:2]) as granted:
                    if granted:
                        yield
                        return
                if time.monotonic() > deadline:
                    raise StoreUnavailableError("another process imports the same file at this moment; try again soon")
                time.sleep(PAUSE_SECONDS)

    def _take(self, key: str, chunk: Chunk, allowed: frozenset[str]) -> Receipt:
        now = self._service.clock.now()
        accepted, rejects = 0, list[Reject]()
        for piece in self._pieces(key, chunk.written, now):
            if piece.accepted is not None:
                accepted += piece.accepted
                continue
            start, end = (bisect.bisect_left(chunk.records, line) for line in (piece.start, piece.end))
            lines = chunk.lines if end - start == len(chunk.lines) else chunk.lines[start:end]
            refused = [replace(r, row=r.row - start) for r in chunk.refused if start <= r.row < end]
            origin = Origin(FILE, piece.batch, now)
            if piece.is_copy:
                more = self._service.ingest.refused(lines, origin)
                accepted += sum(1 for line in lines if line and not line.isspace()) - len(more)
                refused += more
            else:
                receipt = self._service.take_batch(lines, origin, allowed, refused)
                refused, accepted = list(receipt.rejects), accepted + receipt.accepted
            rejects += [replace(r, row=r.row + start) for r in refused]
        return Receipt(accepted, rejects)

    def _pieces(self, key: str, lines: Sequence[bytes], now: datetime) -> list[_Piece]:
        """The batches that lines belong to. They are kept in mind, but for a last line that is not ended yet."""
        pieces = []
        start, ended = 0, _ended(lines)
        while start < ended:
            piece = self._known(key, lines, start, ended, now)
            pieces.append(piece)
            start = piece.end
            key = _hash(f"{piece.batch}\x1f{piece.end - piece.start}")
        if any(line.strip() for line in lines[start:]):
            # Where whole lines are known to follow, half of one is the end of an older copy.
            follow = not self._service.store.query("imports_of_key", key=key, lines=1).is_empty()
            pieces.append(_Piece(key, start, len(lines), follow))
        return pieces

    def _known(self, key: str, written: Sequence[bytes], start: int, end: int, now: datetime) -> _Piece:
        """The first of these lines that are one batch.

        It is one that they begin with, or that begins with all of them; else a new one for all of them.
        """
        lines = written[start:end]
        known = self._service.store.query("imports_of_key", key=key, lines=len(lines))
        number = known.height
        for earlier, length, digest, check, imported in known.iter_rows():
            batch = _named(key, earlier)
            if length <= len(lines) and _digest(lines[:length]) == digest:
                if imported < now - SEEN_AGAIN:
                    self._keep_in_mind(key, earlier, lines[:length], now)
                return _Piece(batch, start, start + length, accepted=self._accepted(batch))
            if length > len(lines) and check == _checks(lines)[-1]:
                if self._is_there(batch):
                    return _Piece(batch, start, end, is_copy=True)
                # All of it was never taken in, and the copy that has more may be lost by now.
                self._service.forget_batch(Origin(FILE, batch, now))
                number = earlier
                break
        self._keep_in_mind(key, number, lines, now)
        return _Piece(_named(key, number), start, end)

    def _keep_in_mind(self, key: str, number: int, lines: Sequence[bytes], now: datetime) -> None:
        about = {"key": key, "number": number, "lines": len(lines), "digest": _digest(lines), "imported": now}
        row = {**about, "checks": _checks(lines)}
        unsigned = pl.DataFrame(
            [row], schema_overrides={"number": pl.UInt32, "lines": pl.UInt64, "checks": pl.List(pl.UInt32)}
        )
        self._service.store.insert("imports", unsigned)

    def _accepted(self, batch: str) -> int | None:
        """How many events a batch has that need not be taken in again."""
        record = self._service.store.query("batch_record", source=FILE, batch=batch)
        same = record.filter(rejected=0, revision=self._service.revision)
        return None if same.is_empty() else int(same["predictions"][0] + same["others"][0])

    def _is_there(self, batch: str) -> bool:
        """Whether all of a batch is there, or it counts as if it were."""
        store = self._service.store
        recorded = store.query("batch_record", source=FILE, batch=batch)
        return not (recorded.is_empty() and sealed_hours_of(store, FILE, batch).is_empty())


def _ended(lines: Sequence[bytes]) -> int:
    """How many lines there are without blank ones at the end, and without one of which only the beginning is written.

    >>> _ended([b'{"a": 1}', b'{"a": 2}', b""]), _ended([b'{"a": 1}', b'{"a": 2}']), _ended([b'{"a": 1}', b'{"a": '])
    (2, 2, 1)
    """
    end = len(lines)
    if end and not _is_value(lines[-1]):
        end -= 1
    while end and not lines[end - 1].strip():
        end -= 1
    return end


def _is_value(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _named(key: str, number: int) -> str:
    return key if number == 0 else _hash(f"{key}\x1f#{number}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _written(line: bytes) -> bytes:
    """A line with its end, which the last one of a file may lack."""
    return line.rstrip() + b"\n"


def _digest(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(map(_written, lines))).hexdigest()


def _checks(lines: Sequence[bytes]) -> list[int]:
    """Of each line, the checksum of all up to it."""
    seen = itertools.accumulate(lines, lambda check, line: zlib.crc32(_written(line), check), initial=0)
    return list(seen)[1:]
