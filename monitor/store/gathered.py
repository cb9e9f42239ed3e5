"""Rows of many models in one insert, as each insert costs about as much as writing a thousand rows."""

from __future__ import annotations

from collections import defaultdict

import polars as pl

from monitor.store import Store
from monitor.store.wrapped import WrappedStore


class Gathered(WrappedStore):
    """A store that keeps what is inserted until ``write``. What is asked for goes to the store behind it at once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._rows: dict[str, list[pl.DataFrame]] = defaultdict(list)

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Keep the rows. Those of one table have the same columns."""
        self._rows[table].append(rows)

    def write(self) -> None:
        """Write all that was inserted; it is durable then."""
        for table, frames in self._rows.items():
            self._store.insert(table, pl.concat(frames))
        self._rows.clear()
