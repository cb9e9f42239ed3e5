"""The rows of several batches in one insert a table, as each insert costs about as much as writing a thousand rows."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator

import polars as pl

from monitor.store import Parameter, Store
from monitor.store.wrapped import WrappedStore


class Together(WrappedStore):
    """A store that can keep what one thread inserts, and write it at once.

    kept
        The tables whose rows may be kept, in the order of which ``last`` is written after all others. Whatever else is
        done comes after what was kept by then.
    """

    def __init__(self, store: Store, kept: Collection[str], last: str) -> None:
        super().__init__(store)
        self._kept = frozenset(kept)
        self._last = last
        self._own = threading.local()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Keep what this thread inserts until the end, where it becomes durable. Where it fails, nothing may be."""
        self._own.rows = defaultdict(list)
        try:
            yield
            self._write()
        finally:
            del self._own.rows

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows, or keep them."""
        if table in self._kept and hasattr(self._own, "rows"):
            self._own.rows[table].append(rows)
            return
        self._write()
        self._store.insert(table, rows)

    def query(self, name: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows that ``queries/NAME.sql`` gives."""
        self._write()
        return self._store.query(name, **parameters)

    def execute(self, sql: str) -> None:
        """Run one statement that gives no rows."""
        self._write()
        self._store.execute(sql)

    def select(self, sql: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows of a statement that was built in code."""
        self._write()
        return self._store.select(sql, **parameters)

    def _write(self) -> None:
        kept: dict[str, list[pl.DataFrame]] = getattr(self._own, "rows", {})
        for table in sorted(kept, key=self._last.__eq__):  # a table's place is that of its first rows
            alike: dict[object, list[pl.DataFrame]] = defaultdict(list)
            for rows in kept[table]:
                alike[tuple(rows.schema.items())].append(rows)
            for frames in alike.values():
                self._store.insert(table, pl.concat(frames))
        kept.clear()
