"""How long inserts take, and how many fail."""

from __future__ import annotations

import time

import polars as pl

from monitor.metrics import Metrics
from monitor.store import Store
from monitor.store.wrapped import WrappedStore


class Measured(WrappedStore):
    """A store whose inserts are measured."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        super().__init__(store)
        self._metrics = metrics

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows."""
        if rows.is_empty():
            return
        started = time.perf_counter()
        try:
            self._store.insert(table, rows)
        except Exception:
            self._metrics.insert_failures.labels(table).inc()
            raise
        self._metrics.insert_seconds.labels(table).observe(time.perf_counter() - started)
