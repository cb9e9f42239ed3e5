"""Rows of many models in one insert, as each insert costs about as much as writing a thousand rows."""

from __future__ import annotations

from collections import defaultdict

import polars as pl

from monitor.store import Parameter, Store


class Gathered:
    """A store that keeps what is inserted until ``write``. What is asked for goes to the store behind it at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, list[pl.DataFrame]] = defaultdict(list)

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Keep the rows. Those of one table have the same columns."""
        self._rows[table].append(rows)

    def write(self) -> None:
        """Write all that was inserted; it is durable then."""
        for table, frames in self._rows.items():
            self._store.insert(table, pl.concat(frames))
        self._rows.clear()

    def query(self, name: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows that ``queries/NAME.sql`` gives."""
        return self._store.query(name, **parameters)

    def execute(self, sql: str) -> None:
        """Run one statement that gives no rows."""
        self._store.execute(sql)

    def select(self, sql: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows of a statement that was built in code."""
        return self._store.select(sql, **parameters)

    def close(self) -> None:
        """Release the store behind it."""
        self._store.close()
