"""Tables of events among lines: a table is as many lines that nobody has written, and is only read when taken in."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from monitor.decode import Reject

if TYPE_CHECKING:
    from monitor.table_events import TableEvents

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
FIRST_BYTES = b"\xff\xff\xff\xff"
"""No JSON begins with them, nor does any text."""
BAD_TABLE = "bad_table"


class BadTableError(ValueError):
    """A table that cannot be read. The message says what is wrong with it, and what would be right."""


class LargeTableError(BadTableError):
    """A table that is too large, or would be when it is unpacked."""


class TableLines(Sequence[bytes]):
    """The rows of an Arrow IPC stream as lines.

    It has as many rows as it says, whether they can be read or not, so that the rows behind it always have the same
    numbers. One that does not even say how many is one row.

    problem
        Why it cannot be read, as far as that is seen without unpacking it; empty if nothing is.
    size
        About how many bytes its lines have.
    """

    def __init__(self, raw: bytes) -> None:
        from monitor.arrow_stream import read_head

        self.raw = raw
        self.problem: Exception | None = None
        self.size = len(raw)
        self._rows = 1
        try:
            head = read_head(raw)
        except BadTableError as error:
            self.problem = error
        else:
            self._rows, self.size = head.rows, max(head.size, len(raw))

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """A row as a line. Raises BadTableError."""
        return self._written[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._written)

    @functools.cached_property
    def _written(self) -> list[bytes]:
        return self.events.lines()

    @functools.cached_property
    def events(self) -> TableEvents:
        """Its rows as columns. Raises BadTableError."""
        from monitor.arrow_stream import read_table
        from monitor.table_events import read_events

        if self.problem is not None:
            raise self.problem
        table = read_table(self.raw)
        if table.num_rows != len(self):
            raise BadTableError(f"it says that it has {len(self)} rows, and has {table.num_rows}")
        return read_events(table)

    def check(self) -> None:
        """Raises BadTableError if it cannot be read."""
        _ = self.events


class Mixed(Sequence[bytes]):
    """The lines of several parts, one after another, some of them tables."""

    def __init__(self, parts: Sequence[Sequence[bytes]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        return list(self)[index]

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from part


def is_table(raw: bytes, content_type: str = "") -> bool:
    """Whether something is sent as an Arrow stream, be it a good one or not."""
    return content_type.lower().startswith(CONTENT_TYPE) or raw.startswith(FIRST_BYTES)


def one_after_another(parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """The lines of several parts; a list, if none of them is a table."""
    if any(isinstance(part, TableLines) for part in parts):
        return Mixed(parts)
    return [line for part in parts for line in part]


def apart(lines: Sequence[bytes]) -> tuple[list[bytes], list[tuple[int, TableLines]]]:
    """The lines, empty where rows of tables are; and the tables, each with the number of its first row."""
    parts = lines.parts if isinstance(lines, Mixed) else [lines]
    written: list[bytes] = []
    tables = []
    for part in parts:
        if isinstance(part, TableLines):
            tables.append((len(written), part))
            written += [b""] * len(part)
        else:
            written += part
    return written, tables


def read_tables(
    tables: Sequence[tuple[int, TableLines]],
) -> tuple[list[tuple[TableEvents, NDArray[np.int64]]], list[Reject]]:
    """The events of tables, each with the numbers of its rows; and the tables that cannot be read."""
    from monitor.table_events import one_below_the_other

    read, broken = [], []
    for first, table in tables:
        try:
            read.append((table.events, np.arange(first, first + len(table))))
        except BadTableError as error:
            broken.append(_refused(first, table, error))
    return one_below_the_other(read), broken


def all_written(lines: Sequence[bytes]) -> tuple[list[bytes], list[Reject]]:
    """The lines with those of tables written; and the tables that cannot be read, whose lines are empty."""
    written, tables = apart(lines)
    broken = []
    for first, table in tables:
        try:
            written[first : first + len(table)] = table
        except BadTableError as error:
            broken.append(_refused(first, table, error))
    return written, broken


def _refused(first: int, table: TableLines, error: Exception) -> Reject:
    """A table that cannot be read: one dead letter, at its first row."""
    return Reject(first, BAD_TABLE, str(error), table.raw, len(table))
