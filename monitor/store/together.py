"""The rows of several batches in one insert a table, as each insert costs about as much as writing a thousand rows."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import polars as pl

from monitor.store import Parameter, Store
from monitor.store.wrapped import WrappedStore


@dataclass
class _Kept:
    """What was inserted, in steps: each batch's rows are in the order in which they were inserted.

    at
        The step behind that of the last rows of the batch that is being inserted.
    """

    steps: list[tuple[str, list[pl.DataFrame]]] = field(default_factory=list)
    at: int = 0

    def add(self, table: str, rows: pl.DataFrame) -> None:
        """Add the rows to the next step of their table, or as a step of their own."""
        tables = [name for name, _ in self.steps]
        try:
            self.at = tables.index(table, self.at)
        except ValueError:
            self.steps.insert(self.at, (table, []))
        self.steps[self.at][1].append(rows)
        self.at += 1


class Together(WrappedStore):
    """A store that can keep what one thread inserts, and write it at once.

    kept
        The tables whose rows may be kept. Whatever else is done comes after what was kept by then.
    last
        The table that ends each batch.
    """

    def __init__(self, store: Store, kept: Collection[str], last: str) -> None:
        super().__init__(store)
        self._kept = frozenset(kept)
        self._last = last
        self._own = threading.local()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Keep what this thread inserts until the end, where it becomes durable. Where it fails, nothing may be."""
        self._own.kept = _Kept()
        try:
            yield
            self._write()
        finally:
            del self._own.kept

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows, or keep them."""
        kept: _Kept | None = getattr(self._own, "kept", None)
        if kept is not None and table in self._kept:
            kept.add(table, rows)
            if table == self._last:
                kept.at = 0
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
        kept: _Kept = getattr(self._own, "kept", _Kept())
        for table, inserted in kept.steps:
            alike: dict[object, list[pl.DataFrame]] = defaultdict(list)
            for rows in inserted:
                alike[tuple(rows.schema.items())].append(rows)
            for frames in alike.values():
                self._store.insert(table, pl.concat(frames))
        kept.steps, kept.at = [], 0
