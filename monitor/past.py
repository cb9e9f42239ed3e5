"""What served in the two weeks before a time, hour by hour, and what was announced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from monitor.fleet import announced, served_by_hour
from monitor.folding import Hours
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import floor

HOUR = timedelta(hours=1)
MOST_LISTED = 3
PAST = timedelta(days=15)
"""Two weeks, and a day to see what came before them."""


@dataclass(frozen=True)
class Past:
    """The live traffic of a model up to a time, and all releases until then.

    hours
        A row per hour, version and server, oldest first: rows, ``first_seen`` and ``last_seen`` (starts of minutes).
    releases
        Newest first.
    """

    end: datetime
    hours: pl.DataFrame
    releases: pl.DataFrame

    def servers_since(self, at: datetime) -> set[str]:
        """The servers that served in some minute since a time."""
        return set(self.hours.filter(pl.col("last_seen") >= at)["server"].to_list())

    def rows_before(self, at: datetime) -> int:
        """Rows in the whole hours before a time."""
        return int(self.hours.filter(pl.col("hour") < floor(at, HOUR))["rows"].sum())

    def places(self) -> pl.DataFrame:
        """A row per version and server: when it was first and last seen."""
        seen = (pl.col("first_seen").min(), pl.col("last_seen").max())
        return self.hours.group_by("version", "server").agg(*seen).sort("first_seen", "version", "server")

    def announced(self, version: str, server: str = "") -> bool | None:
        """Whether somebody said that the version is released (there); None where nobody says such things at all."""
        return announced(self.releases, version, server)

    def retired(self, version: str, server: str = "") -> datetime | None:
        """When a version (on a server, if one is named) was retired; None where the last that was said is otherwise."""
        for row in self.releases.iter_rows(named=True):
            if row["version"] == version and (not row["servers"] or not server or server in row["servers"]):
                at: datetime = row["timestamp"]
                return at if row["action"] == "retire" and (not row["servers"] or server) else None
        return None


def read_past(store: Store, model: Model, end: datetime, known: Hours) -> Past:
    """What is known of the two weeks before a time.

    known
        The hours of a span that holds those weeks.
    """
    hours = served_by_hour(store, known, floor(end - PAST, HOUR), end)
    releases = store.query("releases", environment=model.environment, model=model.name, until=end)
    return Past(end, hours, releases)


def listed(names: Sequence[str]) -> str:
    """Some names in words.

    >>> listed(["a", "b", "c", "d"]), listed(["a", "b"])
    ('a, b, c and 1 more', 'a, b')
    """
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
