"""False alarms of a fleet whose servers differ for ever, from traffic to incidents by the product's own code.

Six servers in three regions, each with its own level, time of day and wandering; routing is not declared, so each is
held against what it usually is beside the others. Only rows are drawn here, as counts over the layout's cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alerts.policy import ModelRules, Policy
from alerts.replay import Firing, JudgedWindow, replay
from benchmarks.quality.stream import CELLS, EDGES, HOUR, MONDAY, SERVERS, Floats, fleet, interval
from benchmarks.quality.table import Line
from detectors.finding import Finding, Window, step
from detectors.layout import FeatureCells, Kind, Layout
from monitor.config import ModelSpec
from monitor.measure import Measure
from monitor.registry import Model
from monitor.usual import CONTRASTS_KEPT, UsualScores
from monitor.windows import Traffic, floor

FLEETS, FEATURES = 6, 3
WEEKS = 8
CHANGED, FOLLOWED = 28, 2
"""Days before a server changes, and in which it is to be found."""
LENGTHS = (HOUR, 6 * HOUR, 24 * HOUR)
POLICIES = tuple(Policy(f"{length}", "server_outlier", window=length, hold=1) for length in LENGTHS)
NAMES = tuple(f"x{i}" for i in range(FEATURES))
SPEC = ModelSpec.model_validate({"windows": ["1h", "6h", "24h"], "monitors": ["servers"]})
LAYOUT = Layout(tuple(FeatureCells(name, Kind.NUMERIC, edges=(-9.0, *EDGES.tolist(), 9.0)) for name in NAMES))
MODEL = Model("production", "m", SPEC, LAYOUT, {})
RULES = ModelRules("production", "m", 1.0, HOUR)


def lines() -> Iterator[Line]:
    """Incidents a week where nothing changes, and how soon one server is found that does."""
    days = 7 * WEEKS
    quiet = [list(Life(_hourly(number, days, 0.0)).incidents(days)) for number in range(FLEETS)]
    per_week = np.array([len(firings) / WEEKS for firings in quiet])
    low, high = interval(per_week)
    yield Line(
        f"six servers in three regions that differ for ever, {WEEKS} weeks: incidents a week",
        "<= 2 (budget 1)",
        f"{per_week.mean():.2f} ({low:.2f} to {high:.2f})",
        bool(per_week.mean() <= 2),
    )
    days = CHANGED + FOLLOWED
    at = MONDAY + timedelta(days=CHANGED)
    found = [_delay(list(Life(_hourly(number, days, 0.5)).incidents(days)), at) for number in range(FLEETS)]
    yield Line(
        "one server of that fleet +0.5 sd in the fifth week: median delay",
        "",
        f"{np.median(found):.0f} h; found in {FOLLOWED} days {100 * np.isfinite(found).mean():.0f} %",
    )


def _delay(firings: list[Firing], at: datetime) -> float:
    """Hours until the first server is accused."""
    hours = [(f.incident.last_window_end - at) / HOUR for f in firings if f.incident.server == "s0"]
    return min((h for h in hours if h > 0), default=np.inf)


def _hourly(number: int, days: int, shift: float) -> Floats:
    """Hours x servers x cells of the layout."""
    counts = fleet(np.random.default_rng([24, number]), days, FEATURES, shift)
    placed = np.zeros((*counts.shape[:3], LAYOUT.features[0].size))
    placed[..., 1 : CELLS + 1] = counts
    return placed.reshape(len(counts), SERVERS, LAYOUT.size)


@dataclass
class Life:
    """A fleet's windows as they are judged one after another, each with the scores of those before it."""

    hourly: Floats
    kept: dict[timedelta, pl.DataFrame] = field(default_factory=dict)

    def incidents(self, days: int) -> Iterator[Firing]:
        """What the policies find."""
        windows = (
            Window("production", "m", MONDAY + start, MONDAY + start + length)
            for length in LENGTHS
            for start in _starts(length, timedelta(days=days))
        )
        judged = (JudgedWindow(w, w.end, self.judge(w)) for w in sorted(windows, key=lambda w: (w.end, -_hours(w))))
        for replayed in replay(POLICIES, RULES, judged, AlwaysThere()):
            yield from replayed.firings

    def judge(self, window: Window) -> list[Finding]:
        """The window's findings; what is usual is learned from windows side by side."""
        length = window.end - window.start
        first = (window.start - MONDAY) // HOUR
        rows = self.hourly[first : first + length // HOUR].sum(axis=0).astype(np.int64)
        findings = list(Measure(MODEL, window, _traffic(rows), "1", self.usual(window)).findings())
        if window.start == floor(window.start, length):
            now = _scores(findings)
            self.kept[length] = pl.concat([self.kept[length], now]) if length in self.kept else now
        return findings

    def usual(self, window: Window) -> UsualScores:
        """Of the windows of its length that ended before it, as the store would give them."""
        length = window.end - window.start
        if length not in self.kept:
            return UsualScores(length)
        since = window.start - max(CONTRASTS_KEPT, 10 * length)
        rows = self.kept[length].filter((pl.col("end") > since) & (pl.col("end") <= window.start))
        places = rows.partition_by("detector", "baseline", "version", "server", "segment", as_dict=True)
        return UsualScores(length, places)


class AlwaysThere:
    """All servers serve all the time."""

    def served(self, environment: str, model: str, since: datetime, until: datetime) -> Mapping[str, Mapping[str, int]]:  # noqa: ARG002 - they serve at any time, and it is one model
        """Rows of each version on each server."""
        return {"1": {f"s{i}": 1 for i in range(SERVERS)}}


def _starts(length: timedelta, days: timedelta) -> Iterator[timedelta]:
    every = step(length)
    yield from (i * every for i in range((days - length) // every + 1))


def _hours(window: Window) -> float:
    return (window.end - window.start) / HOUR


def _traffic(matrix: NDArray[np.int64]) -> Traffic:
    plain = {"version": "1", "segment": "", "role": "live", "weight": 1.0, "failures": 0, "undeclared_keys": 0}
    per_server = {"server": [f"s{i}" for i in range(SERVERS)], "rows": matrix.sum(axis=1) // FEATURES}
    return Traffic(pl.DataFrame(per_server).with_columns(**{k: pl.lit(v) for k, v in plain.items()}), matrix)


def _scores(findings: list[Finding]) -> pl.DataFrame:
    """As the store keeps them: a row for each score."""
    rows = [
        (
            *(f.window.start, f.window.end, f.detector, f.baseline),
            *(f.subject.version, f.subject.server, f.subject.segment, f.subject.feature),
            *(float(f.exposure), name, value, f.calibrated.get(name, np.nan)),
        )
        for f in findings
        for name, value in f.scores.items()
    ]
    names = (
        *("start", "end", "detector", "baseline", "version", "server", "segment", "feature"),
        *("exposure", "score_name", "score", "calibrated"),
    )
    kinds: dict[str, pl.DataType | type[pl.DataType]] = {
        "start": pl.Datetime("ms", "UTC"),
        "end": pl.Datetime("ms", "UTC"),
        "exposure": pl.Float64,
    }
    return pl.DataFrame(rows, names, schema_overrides=kinds, orient="row")
