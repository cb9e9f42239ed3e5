"""A store in front of another one, which does everything that it is not told to do otherwise."""

from __future__ import annotations

import polars as pl

from monitor.store import Parameter, Store


class WrappedStore:
    """Hands everything on to the store behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows."""
        self._store.insert(table, rows)

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
