"""The map of versions and servers, from what the logs say and from what was announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from monitor.folding import Hours, span
from monitor.registry import Model
from monitor.store import Store

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SIDE_BY_SIDE = timedelta(minutes=5)
"""Versions that a server shows within this time of each other serve side by side."""


@dataclass(frozen=True)
class Place:
    """One version on one server, as the logs show it. Times are the starts of minutes.

    serving
        It was seen in the last window before the time asked for, and not long before the last that the server showed
        at all: a version that another one followed has gone.
    announced
        A release event names this version (and this server, where it names servers). None: no release events at all.
    """

    server: str
    version: str
    rows: int
    requests: float
    first_seen: datetime
    last_seen: datetime
    serving: bool
    announced: bool | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        times = {"first_seen": self.first_seen.isoformat(), "last_seen": self.last_seen.isoformat()}
        return {**self.__dict__, **times}


def fleet(store: Store, model: Model, at: datetime) -> list[Place]:
    """Every version on every server up to a time, by server and first sight."""
    table = served(store, model.environment, model.name, BEGINNING, at)
    releases = store.query("releases", environment=model.environment, model=model.name, until=at)
    latest = dict(table.group_by("server").agg(pl.col("last_seen").max()).iter_rows())
    recent = at - min(model.spec.windows)
    return [
        Place(
            server=row["server"],
            version=row["version"],
            rows=row["rows"],
            requests=row["requests"],
            first_seen=row["first_seen"],
            last_seen=row["last_seen"],
            serving=row["last_seen"] + MINUTE > recent and row["last_seen"] + SIDE_BY_SIDE > latest[row["server"]],
            announced=announced(releases, row["version"], row["server"]),
        )
        for row in table.iter_rows(named=True)
    ]


def served(store: Store, environment: str, model: str, start: datetime, end: datetime) -> pl.DataFrame:
    """A row per version and server: rows, requests, and the first and the last minute."""
    hours = span(store, environment, model, start, end)
    return store.query("served", environment=environment, model=model, **hours.parameters)


def served_by_hour(store: Store, known: Hours, start: datetime, end: datetime) -> pl.DataFrame:
    """A row per hour, version and server: rows, and the first and the last minute."""
    asked = {"environment": known.environment, "model": known.model}
    return store.query("served_hours", **asked, **known.span(start, end).parameters)


class ServedTraffic:
    """What served between two times: the view of the fleet that the alerts room asks for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def served(self, environment: str, model: str, since: datetime, until: datetime) -> Mapping[str, Mapping[str, int]]:
        """Rows per version and server in whole minutes from ``since`` to ``until``."""
        table = served(self._store, environment, model, since, until)
        rows: dict[str, dict[str, int]] = {}
        for version, server, count in table.select("version", "server", "rows").iter_rows():
            rows.setdefault(version, {})[server] = count
        return rows


def announced(releases: pl.DataFrame, version: str, server: str = "") -> bool | None:
    """Whether a release event names the version, and the server where both name one; None without any such events."""
    if releases.is_empty():
        return None
    return any(
        row["version"] == version
        and row["action"] != "retire"
        and (not row["servers"] or not server or server in row["servers"])
        for row in releases.iter_rows(named=True)
    )
