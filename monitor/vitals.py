"""What the store says of the service's health, for its metrics."""

from __future__ import annotations

from datetime import datetime, timedelta

from monitor.metrics import Metrics, show_all
from monitor.store import Store
from monitor.windows import floor

HOUR = timedelta(hours=1)


class Vitals:
    """Asks the store, and lets the metrics show what it says."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def look(self, now: datetime) -> None:
        """What can be told in no time: parts, and what clients lost in the last hour."""
        parts = self._store.query("parts").rows()
        show_all(self._metrics.parts, {(table,): count for table, count, _ in parts})
        show_all(self._metrics.partition_parts, {(table,): most for table, _, most in parts})
        drops = self._store.query("client_drops", start=now - HOUR, end=now).rows()
        show_all(self._metrics.client_drops, {tuple(place): dropped for *place, dropped in drops})

    def count_duplicates(self, now: datetime) -> None:
        """How many predictions of the last whole hour are there more than once."""
        end = floor(now, HOUR)
        found = self._store.query("duplicates", start=end - HOUR, end=end).rows()
        show_all(self._metrics.duplicates, {(environment, model): count for environment, model, count in found})
