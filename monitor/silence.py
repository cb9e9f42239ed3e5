"""Who went silent: servers, versions and whole models, and whether something explains it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from detectors.finding import Finding, Subject, Window
from detectors.silence import Floats, Record, Silence, of_season, of_share, silence_finding
from monitor.past import HOUR, PAST, Past, listed
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import Traffic, floor

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
GONE_AFTER = timedelta(days=2)
"""Who is silent for so long is taken for gone."""
FORGOTTEN_AFTER = timedelta(days=5)
"""Who has been gone for so long is not spoken of."""
AT_ONCE = timedelta(hours=1)
"""What happens within this time of each other belongs together."""
DEPARTURES = 3
"""Where servers left so often without another one in their place, they come and go."""


def silence_findings(store: Store, model: Model, window: Window, traffic: Traffic, past: Past) -> Iterator[Finding]:
    """Detector ``silence`` of the whole model, and of each server and version that served steadily."""
    since = floor(window.end - HOUR, HOUR)
    asked = {"environment": model.environment, "model": model.name}
    minutes = store.query("served_minutes", **asked, start=since, end=window.end)
    if minutes["rows"].sum() < past.hours.filter(pl.col("hour") >= since)["rows"].sum():
        return  # minutes are not kept as long as hours
    look = _Look(store, model, past, past.hours.filter(pl.col("hour") < since), minutes, since)
    whole = look.record()
    season = of_season(whole)
    why = look.why_model() if season is not None and season.severity >= 1 else ""
    yield silence_finding(window, Subject(), season, traffic.rows(), explained=why)
    servers = look.silences("server", whole)
    for server, silence in servers.items():
        why = look.why_server(server, silence, servers) if silence.severity >= 1 else ""
        yield silence_finding(window, Subject(server=server), silence, traffic.rows(server=server), explained=why)
    for version, silence in look.silences("version", whole).items():
        why = look.why_version(version, silence) if silence.severity >= 1 else ""
        yield silence_finding(window, Subject(version), silence, traffic.rows(version=version), explained=why)


@dataclass(frozen=True)
class _Look:
    """What served by hour, and by minute since."""

    store: Store
    model: Model
    past: Past
    hours: pl.DataFrame
    minutes: pl.DataFrame
    since: datetime

    def record(self, **subject: str) -> Record:
        """What one server or version served, or all of them together."""
        hours, minutes = (_of(table, subject) for table in (self.hours, self.minutes))
        first = self.hours["hour"].min()
        start = first if isinstance(first, datetime) else self.since
        size, at = _places(hours["hour"], start, self.since, HOUR)
        rows = _added(hours["rows"], at, size)
        ends = (hours["hour"] + HOUR - hours["last_seen"]).dt.total_minutes().to_numpy() / 60
        rest = np.ones(size)
        np.minimum.at(rest, at, ends)
        size, at = _places(minutes["minute"], self.since, self.past.end, MINUTE)
        return Record(rows, rest, _added(minutes["rows"], at, size))

    def silences(self, what: str, whole: Record) -> dict[str, Silence]:
        """The silence of each server or version that served steadily and is not forgotten."""
        found = {}
        for name in self.hours[what].unique().sort().to_list():
            silence = of_share(self.record(**{what: name}), whole)
            if silence is not None and silence.steady and silence.minutes * MINUTE < FORGOTTEN_AFTER:
                found[name] = silence
        return found

    def why_model(self) -> str:
        """Why it is right that the whole model is silent; empty where nothing explains it."""
        places = self.past.places()
        if all(map(self.past.retired, _lately(places)["version"].to_list())):
            return "all versions are retired"
        return self._imported(places)

    def why_server(self, server: str, silence: Silence, servers: dict[str, Silence]) -> str:
        """Why it is right that a server is silent; empty where nothing explains it."""
        places = self.past.places().filter(pl.col("server") == server)
        came = self._came_for(_last_seen(places))
        if all(self.past.retired(version, server) for version in _lately(places)["version"].to_list()):
            return "what it served is retired"
        if came:
            return f"{listed(came)} came in its place"
        if self._departures(servers) >= DEPARTURES:
            return "servers of this model come and go"
        return self._imported(places) or self._gone(silence)

    def why_version(self, version: str, silence: Silence) -> str:
        """Why it is right that a version is silent; empty where nothing explains it."""
        places = self.past.places()
        own = places.filter(pl.col("version") == version)
        last_seen = _last_seen(own)
        servers = _lately(own)["server"].to_list()
        later = places.filter((pl.col("version") != version) & (pl.col("last_seen") > last_seen))
        there = later.filter(pl.col("server").is_in(servers))
        if self.past.retired(version):
            return "it is retired" + _took_over(there)
        if 2 * there["server"].n_unique() >= len(servers):
            return _took_over(there).removeprefix("; ")
        new = later.filter(pl.col("server").is_in(self._came_for(last_seen)))
        released = later.filter(pl.col("version").is_in(self._released_since(last_seen - AT_ONCE)))
        took_over = _took_over(new if new.height else released).removeprefix("; ")
        return took_over or self._imported(own) or self._gone(silence)

    def _released_since(self, at: datetime) -> list[str]:
        told = self.past.releases.filter((pl.col("timestamp") >= at) & (pl.col("action") != "retire"))
        return told["version"].unique().to_list()

    def _came_for(self, left: datetime) -> list[str]:
        """The servers that came when some left, if they are as many as those."""
        seen = self.past.places().group_by("server").agg(pl.col("first_seen").min(), pl.col("last_seen").max())
        came = seen.filter((pl.col("first_seen") - left).abs() <= AT_ONCE).filter(pl.col("last_seen") > left)
        silent = seen.filter(pl.col("last_seen") < self.past.end - AT_ONCE / 3)
        gone = silent.filter((pl.col("last_seen") - left).abs() <= AT_ONCE)
        return came["server"].sort().to_list() if came.height >= gone.height else []

    def _departures(self, servers: dict[str, Silence]) -> int:
        """How often servers left for good with none in their place."""
        seen = self.past.places().group_by("server").agg(pl.col("last_seen").max())
        left = seen.filter(pl.col("server").is_in(list(servers)) & (pl.col("last_seen") < self.past.end - DAY))
        return len({floor(at, AT_ONCE) for at in left["last_seen"].to_list() if not self._came_for(at)})

    def _imported(self, places: pl.DataFrame) -> str:
        """Nobody waits for the next file: it may be history."""
        return "only imported files tell of it" if set(places["server"].to_list()) <= self._only_imported else ""

    @functools.cached_property
    def _only_imported(self) -> set[str]:
        asked = {"environment": self.model.environment, "model": self.model.name}
        since = floor(self.past.end - PAST, HOUR)
        return set(self.store.query("only_imported", **asked, since=since)["server"].to_list())

    def _gone(self, silence: Silence) -> str:
        return "it is taken for gone" if silence.minutes * MINUTE > GONE_AFTER else ""


def _last_seen(places: pl.DataFrame) -> datetime:
    latest: datetime = places.select(pl.col("last_seen").max()).item()
    return latest


def _lately(places: pl.DataFrame) -> pl.DataFrame:
    """Those that served in the last day in which any did."""
    return places.filter(pl.col("last_seen") > pl.col("last_seen").max() - DAY)


def _of(table: pl.DataFrame, subject: dict[str, str]) -> pl.DataFrame:
    for name, value in subject.items():
        table = table.filter(pl.col(name) == value)
    return table


def _places(at: pl.Series, start: datetime, end: datetime, step: timedelta) -> tuple[int, Any]:
    """How many steps there are, and in which each time is."""
    milliseconds = step // timedelta(milliseconds=1)
    return (end - start) // step, ((at - start).dt.total_milliseconds() // milliseconds).to_numpy()


def _added(rows: pl.Series, at: Any, size: int) -> Floats:
    added: Floats = np.bincount(at, rows.to_numpy(), size).astype(np.float64)
    return added


def _took_over(later: pl.DataFrame) -> str:
    if later.is_empty():
        return ""
    version, _ = Counter(later["version"].to_list()).most_common(1)[0]
    servers = later.filter(pl.col("version") == version)["server"].sort().to_list()
    return f"; version {version} took over on {listed(servers)}"
