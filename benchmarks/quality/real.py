"""Two public streams with seasons, few rows an hour and no drift but what is documented; shifts are planted.

Bike sharing in Washington, 2011 and 2012 (Fanaee-T and Gama 2013), an hour a row: the second year grows by 65 %, all
follows the year, and a hurricane came on 29 October 2012. Electricity in New South Wales and Victoria (Elec2, Harries
1999), two rows an hour: Victoria's market opened in May 1997.
"""

from __future__ import annotations

import gzip
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.quality.stream import KEPT, slow_evidence
from benchmarks.quality.table import Line
from detectors.budget import Look, split
from detectors.calibration import BESIDE_LOCATION, Past, calibrate, kept
from detectors.layout import Column, Layout, numeric_cells
from detectors.multiplicity import cauchy_p
from detectors.scores import Case, scores_of
from detectors.seasons import SPAN, BySlot, Calendar, expectation

Floats = NDArray[np.float64]

FOLDER = Path(os.environ.get("TELLTALE_TEST_DATA", "/nowhere"))
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
HISTORY = 13 * WEEK
"""28 days of rows and then eight weekly windows, which are the least of which a usual score can be told."""
LAYOUT_ROWS = 10_000
"""The cells are made from the first rows, as the product does without a reference."""
SLOW_SCORES = ("location", "scale")
BLIND = "; its cells were made while it was constant"
SLOW = Look("gradual_drift", DAY, DAY)
PLANTED = 0.5
PLANTS = 8
AFTER = 28
"""Days in which a planted shift is to be found; after them it is the past."""


@dataclass(frozen=True)
class Stream:
    """Rows of a table in hours.

    changes
        What is documented, and alarms because of it are not false: features, from, until.
    """

    name: str
    timezone: str
    first: datetime
    hours: NDArray[np.int64]
    values: Mapping[str, Floats]
    changes: Sequence[tuple[frozenset[str], datetime, datetime]]


def bike() -> Stream:
    """Of weather and rentals; the hours that are not in the file had no rentals."""
    table = pl.read_csv(gzip.decompress((FOLDER / "bike_hour.csv.gz").read_bytes()), infer_schema_length=None)
    first = datetime(2011, 1, 1, 5, tzinfo=UTC)
    day = (table["dteday"].str.to_date() - pl.Series([datetime(2011, 1, 1, tzinfo=UTC).date()])).dt.total_days()
    names = ("temp", "hum", "windspeed", "casual", "registered", "cnt")
    storm = datetime(2012, 10, 28, tzinfo=UTC), datetime(2012, 11, 5, tzinfo=UTC)
    return Stream(
        "bike",
        "America/New_York",
        first,
        (24 * day + table["hr"]).to_numpy().astype(np.int64),
        {name: table[name].cast(pl.Float64).to_numpy() for name in names},
        [(frozenset(names), *storm)],
    )


def elec() -> Stream:
    """Of prices, demand and transfer; what Victoria's opening changed is let alone for eight weeks."""
    table = pl.read_csv(gzip.decompress((FOLDER / "elec.csv.gz").read_bytes()), infer_schema_length=None)
    first = datetime(1996, 5, 6, 14, tzinfo=UTC)
    names = ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
    opened = first + 17_424 * HOUR / 2
    return Stream(
        "elec",
        "Australia/Sydney",
        first,
        np.arange(len(table)) // 2,
        {name: table[name].cast(pl.Float64).to_numpy() for name in names},
        [(frozenset(("vicprice", "vicdemand", "transfer")), opened - WEEK, opened + 8 * WEEK)],
    )


def lines() -> Iterator[Line]:
    """False alarms, windows that are judged, and planted shifts, for each stream."""
    for file, read in (("bike_hour.csv.gz", bike), ("elec.csv.gz", elec)):
        if not (FOLDER / file).exists():
            yield Line(file, "", "skipped: it is not in the folder that TELLTALE_TEST_DATA names")
            continue
        yield from of_stream(read())


def of_stream(stream: Stream) -> Iterator[Line]:
    """Windows of a day and of a week, side by side, against the 28 days before each, and slow drift over the days."""
    run = Run.of(stream)
    *shares, slow = split(1.0, [*(Look("drift", length, length) for length in (DAY, WEEK)), SLOW])
    weeks = (run.hours - HISTORY // HOUR) / (24 * 7)
    limit = math.log(len(stream.values) / slow.alpha)
    slowly = {f: dict(zip(run.days, run.slow(f, run.daily) >= limit, strict=True)) for f in stream.values}
    false, whole, known = 0, 0, 0
    by_feature: dict[str, int] = {}
    for share in shares:
        length = share.look.length
        for start in run.starts(length):
            p_values, _ = run.judged(length, start)
            whole += 1
            known += bool(p_values)
            excused = run.excused(start, length)
            alarms = [f for f, p in p_values.items() if p * len(p_values) <= share.alpha and f not in excused]
            false += bool(alarms)
            for feature in alarms:
                by_feature[feature] = by_feature.get(feature, 0) + 1
    who = ", ".join(f"{name} {n}" for name, n in sorted(by_feature.items(), key=lambda x: -x[1]))
    rate = false / weeks
    spread = 1.96 * false**0.5 / weeks
    told = f"{rate:.2f} ({max(0.0, rate - spread):.2f} to {rate + spread:.2f}); windows by feature: {who or 'none'}"
    yield Line(f"{stream.name}, a day and a week: false windows a week", "<= 2 (budget 1)", told, rate <= 2)
    alarmed = [
        [days[start] and feature not in run.excused(start, DAY) for start in run.starts(DAY)]
        for feature, days in slowly.items()
    ]
    begun = sum(hit and not before for days in alarmed for before, hit in itertools.pairwise([False, *days])) / weeks
    wanted = 2 * slow.per_week
    told = f"{begun:.2f}; days a week on which it alarms: {sum(map(sum, alarmed)) / weeks:.1f}"
    yield Line(f"{stream.name}, slow drift: alarms that begin, a week", f"<= {wanted:.2f}", told, begun <= wanted)
    judged = known / whole
    yield Line(f"{stream.name}: windows judged", ">= 90 %", f"{100 * judged:.1f} % of {whole}", judged >= 0.9)
    for feature in stream.values:
        found, times = run.planted(
            feature, {share.look.length: share.alpha for share in shares}, limit, slowly[feature]
        )
        median = f"{np.median(found):.0f} days" if found else "-"
        blind = bool(np.ptp(stream.values[feature][:LAYOUT_ROWS]) == 0)
        yield Line(
            f"{stream.name}, {feature} +{PLANTED} sd: found in {AFTER} days",
            "" if blind else "most",
            f"{len(found)} of {times}, median {median}" + (BLIND if blind else ""),
            None if blind else 2 * len(found) > times,
        )


@dataclass
class Run:
    """A stream as hourly counts, and the scores of its windows."""

    stream: Stream
    layout: Layout
    hourly: Floats
    slots: NDArray[np.int64]
    scores: dict[tuple[timedelta, int], tuple[dict[tuple[str, str], float], dict[str, float]]]
    daily: dict[int, dict[tuple[str, str], float]]

    @staticmethod
    def of(stream: Stream) -> Run:
        """Counts the rows, and scores all windows that have a past."""
        layout = Layout(
            tuple(numeric_cells(name, pl.Series(values[:LAYOUT_ROWS])) for name, values in stream.values.items())
        )
        hourly = _hourly(layout, stream.hours, stream.values)
        starts = [stream.first + hour * HOUR for hour in range(len(hourly))]
        run = Run(stream, layout, hourly, Calendar(stream.timezone).slots(starts), {}, {})
        for length in (DAY, WEEK):
            hours = length // HOUR
            for start in range(24 * 7, run.hours - hours + 1, hours):
                run.scores[length, start] = run.scored(hourly, start, hours, tuple(stream.values))
        run.daily.update({start: run.judged(DAY, start)[1] for of, start in run.scores if of == DAY})
        return run

    @property
    def hours(self) -> int:
        """How many there are."""
        return len(self.hourly)

    def starts(self, length: timedelta) -> list[int]:
        """Of the windows after the history."""
        return [start for of, start in self.scores if of == length and start * HOUR >= HISTORY]

    def scored(
        self, hourly: Floats, start: int, hours: int, features: Sequence[str]
    ) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
        """The scores of a window by feature and component, and its exposure by feature."""
        past = slice(max(0, start - SPAN // HOUR), start)
        window = slice(start, start + hours)
        now, before = (BySlot.of(hourly[part], self.slots[part]) for part in (window, past))
        z: dict[tuple[str, str], float] = {}
        exposure = {}
        cases = []
        for name in features:
            span = self.layout.spans[name]
            found = expectation(now.part(span), before.part(span))
            exposure[name] = found.exposure
            cases.append(Case(self.layout.by_name[name], found.baseline, found.current))
        for name, scores in zip(features, scores_of(cases), strict=True):
            z.update({(name, score.component): score.z for score in scores})
        return z, exposure

    @property
    def days(self) -> list[int]:
        """Where they begin."""
        return list(self.daily)

    def slow(self, feature: str, moved: Mapping[int, Mapping[tuple[str, str], float]]) -> Floats:
        """Evidence of slow drift of a feature after each of some days in a row that have other scores."""
        first = self.days.index(min(moved))
        days = self.days[max(0, first - KEPT) : first + len(moved)]
        z = [[{**self.daily[d], **moved.get(d, {})}.get((feature, name), np.nan) for name in SLOW_SCORES] for d in days]
        return slow_evidence(np.array(z)[:, None, :])[-len(moved) :, 0]

    def judged(
        self,
        length: timedelta,
        start: int,
        now: tuple[dict[tuple[str, str], float], dict[str, float]] | None = None,
        planted: Mapping[int, tuple[dict[tuple[str, str], float], dict[str, float]]] | None = None,
    ) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        """P-value of each feature that can be judged by its past, and its calibrated scores."""
        z, exposure = now or self.scores[length, start]
        hours = length // HOUR
        keys = list(z)
        if not keys:
            return {}, {}
        starts = range(start - kept(length) // HOUR, start - hours + 1, hours)
        since_first = itertools.dropwhile(lambda s: (length, s) not in self.scores, starts)
        earlier = [(planted or {}).get(s) or self.scores.get((length, s), ({}, {})) for s in since_first]
        past = Past(
            np.array([[scores.get(key, np.nan) for key in keys] for scores, _ in earlier]).reshape(-1, len(keys)),
            np.array([[of.get(name, np.nan) for name, _ in keys] for _, of in earlier]).reshape(-1, len(keys)),
            length,
            length,
            SPAN,
        )
        shape = np.array([component == "shape" for _, component in keys])
        at = {name: i for i, (name, component) in enumerate(keys) if component == "location"}
        found = calibrate(
            np.array([z[key] for key in keys]),
            np.array([exposure[name] for name, _ in keys]),
            past,
            shape,
            lasting=False,
            location=np.array([at.get(name, -1) if component in BESIDE_LOCATION else -1 for name, component in keys]),
        )
        by_feature: dict[str, list[float]] = {}
        calibrated = {}
        of_history = found.from_history.tolist()
        for key, p, normal, known in zip(keys, found.p_value.tolist(), found.z.tolist(), of_history, strict=True):
            if known:
                by_feature.setdefault(key[0], []).append(p)
                calibrated[key] = normal
        return {name: cauchy_p(p) for name, p in by_feature.items()}, calibrated

    def excused(self, start: int, length: timedelta) -> set[str]:
        """Features of which a change in that window is documented."""
        begin = self.stream.first + start * HOUR
        return {f for of, a, b in self.stream.changes for f in of if a < begin + length and begin < b}

    def planted(
        self, feature: str, alphas: Mapping[timedelta, float], limit: float, slowly: Mapping[int, bool]
    ) -> tuple[list[float], int]:
        """Days until a shift is found that begins at one of some times, of those where it is; and how many times.

        A window that alarms without the shift finds nothing.
        """
        values = self.stream.values[feature]
        moved = {feature: values + PLANTED * float(values.std())}
        span = self.layout.spans[feature]
        changed = _hourly(Layout((self.layout.by_name[feature],)), self.stream.hours, moved)
        found = []
        begins = np.linspace(HISTORY // HOUR + 24, self.hours - 24 * (AFTER + 8), PLANTS).astype(int)
        for begin in begins.tolist():
            hourly = self.hourly.copy()
            hourly[begin:, span] = changed[begin:]
            first = np.inf
            days = {}
            for length, alpha in alphas.items():
                hours = length // HOUR
                moved_scores = {}
                for start in self.starts(length):
                    if begin < start + hours <= begin + 24 * AFTER:
                        moved_scores[start] = self.scored(hourly, start, hours, (feature,))
                        p_values, calibrated = self.judged(length, start, moved_scores[start], moved_scores)
                        if length == DAY:
                            days[start] = calibrated
                        p, usual = (of.get(feature, 1.0) for of in (p_values, self.judged(length, start)[0]))
                        if p * len(self.stream.values) <= alpha < usual * len(self.stream.values):
                            first = min(first, (start + hours - begin) / 24)
            hits = zip(sorted(days), self.slow(feature, days) >= limit, strict=True)
            first = min([first, *((start + 24 - begin) / 24 for start, hit in hits if hit and not slowly[start])])
            if np.isfinite(first):
                found.append(float(first))
        return found, len(begins)


def _hourly(layout: Layout, hours: NDArray[np.int64], values: Mapping[str, Floats]) -> Floats:
    """A count vector for each hour."""
    hourly = np.zeros((int(hours[-1]) + 1, layout.size))
    for name, span in layout.spans.items():
        cells = layout.by_name[name].cells(Column.of(pl.Series(values[name])))
        np.add.at(hourly, (hours, span.start + cells), 1.0)
    return hourly
