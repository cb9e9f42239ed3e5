"""How long it takes to see a planted change, against other tools at the same number of false alarms.

Independent rows, ten features, a fixed reference of 10,000 rows. Telltale's alarms on twelve quiet weeks are counted,
with a budget of one a week, and each other tool's limits are moved until it has as many. Then a change begins and
goes on, many times over.

What favours the others: their limits are tuned on the same quiet weeks on which they are counted; tools that look at
chunks may choose among 1, 6 and 24 hours, kind of change by kind of change; river gets each level, and whether the
value is missing, as a stream of its own. A chunk begins just at the change, for all. What favours Telltale: its
windows of three lengths.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.quality.peer_environments import NoPeerError, ask, make
from benchmarks.quality.table import Line
from detectors.drift import drift_findings
from detectors.finding import Subject, Window, step
from detectors.layout import Column, Counts, FeatureCells, Kind, Layout, fit_layout
from detectors.multiplicity import holm

Rows = NDArray[np.float64]

SEED = 6
REFERENCE_ROWS = 10_000
ROWS_PER_HOUR = 300
HOURS_A_WEEK = 168
QUIET_HOURS = 12 * HOURS_A_WEEK
BEFORE, AFTER = 24, 48
"""Hours of a stream before and after its change."""
STREAMS = 40
LENGTHS = (1, 6, 24)
OURS = "Telltale"
STEPS = {length: step(timedelta(hours=length)) // timedelta(hours=1) for length in LENGTHS}
"""Hours from one window of each length to the next. Each length has a third of the budget."""
ROUNDING = 1e-6
APART = 24
"""Hours within which alarms are one."""
WANTED = "shortest or tied"
BUDGET = 1.0
MINIMUM_ROWS = 200

NUMERIC, LEVELS, HOLED = "numeric", "levels", "missing"
FEATURES = (*(f"n{i}" for i in range(7)), "holed", "k10", "k4")
RARE = 0.05
SHARES = {"k10": np.array([RARE, *[(1 - RARE) / 9] * 9]), "k4": np.array([0.4, 0.3, 0.2, 0.1])}
MISSING = 0.01


@dataclass(frozen=True)
class Change:
    """A change of one feature: what the peers test it as, and how its rows are drawn afterwards."""

    feature: str
    group: str
    draw: Callable[[np.random.Generator, int], Rows]


def _draw(feature: str, rng: np.random.Generator, rows: int) -> Rows:
    if feature in SHARES:
        return rng.choice(len(SHARES[feature]), rows, p=SHARES[feature]).astype(np.float64)
    return _holed(rng, rows, MISSING) if feature == "holed" else rng.normal(size=rows)


def _holed(rng: np.random.Generator, rows: int, share: float) -> Rows:
    values = rng.normal(size=rows)
    values[rng.random(rows) < share] = np.nan
    return values


CHANGES = {
    "mean +0.2 sd": Change("n0", NUMERIC, lambda rng, rows: rng.normal(0.2, 1, rows)),
    "variance x1.2": Change("n0", NUMERIC, lambda rng, rows: rng.normal(0, math.sqrt(1.2), rows)),
    "level 5 to 8 %": Change(
        "k10", LEVELS, lambda rng, rows: rng.choice(10, rows, p=[0.08, *[0.92 / 9] * 9]).astype(np.float64)
    ),
    "missing 1 to 3 %": Change("holed", HOLED, lambda rng, rows: _holed(rng, rows, 0.03)),
}


class Streams:
    """The reference, the quiet weeks, and each change's streams: rows by feature, hours end to end."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self.reference = {f: _draw(f, rng, REFERENCE_ROWS) for f in FEATURES}
        self.quiet = {f: _draw(f, rng, QUIET_HOURS * ROWS_PER_HOUR) for f in FEATURES}
        self.changed = {
            name: [
                np.concatenate(
                    [_draw(c.feature, rng, BEFORE * ROWS_PER_HOUR), c.draw(rng, AFTER * ROWS_PER_HOUR)],
                )
                for _ in range(STREAMS)
            ]
            for name, c in CHANGES.items()
        }


def lines() -> Iterator[Line]:
    """How many false alarms there were, and a line for each change."""
    streams = Streams()
    ours = Telltale(streams)
    false = incidents(ours.quiet_alarms())
    delays = {OURS: {change: ours.delays(change) for change in CHANGES}}
    skipped = []
    for peer, measure in (("evidently", _chunked), ("nannyml", _chunked), ("river", _river)):
        try:
            make(peer)
            delays |= measure(peer, streams, false)
        except NoPeerError as error:
            skipped.append(str(error))
    weeks = QUIET_HOURS / HOURS_A_WEEK
    yield Line(
        f"false alarms in {weeks:.0f} quiet weeks of independent rows, budget {BUDGET:.0f} a week",
        "the same",
        f"{OURS} {false}; others tuned to as many",
    )
    for change in CHANGES:
        yield _line(
            f"median delay in hours, {change}", {tool: float(np.median(d[change])) for tool, d in delays.items()}
        )
    overall = {
        tool: float(np.mean([min(hours, AFTER) for change in CHANGES for hours in found[change]]))
        for tool, found in delays.items()
    }
    yield _line(f"mean delay in hours over these changes, what is not seen as {AFTER}", overall)
    for reason in skipped:
        yield Line("median delay", WANTED, f"skipped: {reason}")


def _line(measure: str, hours: Mapping[str, float]) -> Line:
    others = [value for tool, value in hours.items() if tool != OURS]
    told = ", ".join(f"{tool} {_hours(value)}" for tool, value in hours.items())
    return Line(measure, WANTED, told, hours[OURS] <= min(others) if others else None)


class Telltale:
    """Counts, ``drift_findings`` and Holm over the features."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        columns = {
            f: (Kind.CATEGORICAL if f in SHARES else Kind.NUMERIC, _column(f, r)) for f, r in streams.reference.items()
        }
        self.layout, self.reference = fit_layout(columns, [str(i) for i in range(REFERENCE_ROWS)], {})

    def quiet_alarms(self) -> list[int]:
        """The hours at whose end something alarms."""
        hourly = np.concatenate([self._hourly(f, rows) for f, rows in self.streams.quiet.items()], axis=1)
        return [
            hour
            for hour, looks in self._looks(hourly, range(max(LENGTHS), QUIET_HOURS))
            if any(holm(self._p_values(self.layout, counts)).min() <= alpha for counts, alpha in looks)
        ]

    def delays(self, name: str) -> list[float]:
        """Of each stream, the hours until its feature alarms. The other features are taken to be quiet."""
        cells = self.layout.by_name[CHANGES[name].feature]
        return [self._delay(cells, rows) for rows in self.streams.changed[name]]

    def _delay(self, cells: FeatureCells, rows: Rows) -> float:
        hourly = self._hourly(cells.name, rows)
        for hour, looks in self._looks(hourly, range(BEFORE, BEFORE + AFTER)):
            if any(len(FEATURES) * self._p_values(Layout((cells,)), c)[0] <= alpha for c, alpha in looks):
                return hour - BEFORE + 1
        return math.inf

    def _looks(self, hourly: Counts, hours: range) -> Iterator[tuple[int, list[tuple[Counts, float]]]]:
        """Per hour the windows that end with it, each with its share of the budget."""
        for hour in hours:
            ending = [(length, every) for length, every in STEPS.items() if (hour + 1) % every == 0]
            yield (
                hour,
                [
                    (hourly[hour + 1 - length : hour + 1].sum(axis=0), BUDGET / len(LENGTHS) * every / HOURS_A_WEEK)
                    for length, every in ending
                ],
            )

    def _hourly(self, feature: str, rows: Rows) -> Counts:
        cells = self.layout.by_name[feature]
        hours = len(rows) // ROWS_PER_HOUR
        at = cells.cells(_column(feature, rows)) + np.repeat(np.arange(hours) * cells.size, ROWS_PER_HOUR)
        return np.bincount(at, minlength=hours * cells.size).reshape(hours, cells.size)

    def _p_values(self, layout: Layout, counts: Counts) -> list[float]:
        reference = np.concatenate([self.reference[self.layout.spans[f.name]] for f in layout.features])
        end = datetime(2026, 1, 1, tzinfo=UTC)
        window = Window("production", "m", end - timedelta(hours=1), end)
        found = drift_findings(window, Subject(), "drift", "reference", layout, reference, counts, MINIMUM_ROWS)
        return [1.0 if f.p_value is None else f.p_value for f in found]


def _column(feature: str, rows: Rows) -> Column:
    if feature in SHARES:
        return Column.of(pl.Series(rows.astype(np.int64)).cast(pl.String))
    return Column.of(pl.Series(rows, nan_to_null=True))


def incidents(hours: Sequence[int]) -> int:
    """An alarm is a new one once a day has passed since the last one counted; who always alarms has one a day."""
    counted: list[int] = []
    for hour in hours:
        if not counted or hour - counted[-1] > APART:
            counted.append(hour)
    return len(counted)


def _chunked(peer: str, streams: Streams, allowed: int) -> dict[str, dict[str, list[float]]]:
    """The delays with each length of chunk; what a tool does not test is never seen."""
    found = _scores(peer, _series(streams, with_missing=peer == "nannyml"))
    delays: dict[str, dict[str, list[float]]] = {}
    for length in LENGTHS:
        limits = limits_of(found, length, allowed)
        tool = delays.setdefault(f"{peer} {length} h", {})
        for name, change in CHANGES.items():
            scores = found.get(f"{name}/{length}/{change.group}/{change.feature}", [-math.inf] * STREAMS)
            limit = limits.get(change.group, 0.0)
            tool[name] = [_first(row > limit, length) for row in np.array(scores).reshape(STREAMS, -1)]
    return delays


def _series(streams: Streams, *, with_missing: bool) -> dict[str, Rows]:
    """Each series in chunks, under ``quiet or change/length/group/feature``, with its reference."""
    series = {}

    def add(what: str, group: str, feature: str, rows: Rows) -> None:
        for length in LENGTHS:
            name = f"{what}/{length}/{group}/{feature}"
            series[name] = rows.reshape(-1, length * ROWS_PER_HOUR)
            series[f"{name}/reference"] = streams.reference[feature]

    for feature, rows in streams.quiet.items():
        add("quiet", LEVELS if feature in SHARES else NUMERIC, feature, rows)
        if feature == "holed" and with_missing:
            add("quiet", HOLED, feature, rows)
    for name, change in CHANGES.items():
        if change.group != HOLED or with_missing:
            after = np.concatenate([rows[BEFORE * ROWS_PER_HOUR :] for rows in streams.changed[name]])
            add(name, change.group, change.feature, after)
    return series


def _scores(peer: str, series: Mapping[str, Rows]) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "series.npz"
        np.savez(path, allow_pickle=False, **series)
        return dict(ask(peer, "scores", str(path)))


def limits_of(found: Mapping[str, Sequence[float]], length: int, allowed: int) -> dict[str, float]:
    """The limit of each group of features at which all of them together alarm as often as is allowed on quiet chunks.

    All groups have the same share of quiet values above their limit.
    """
    groups: dict[str, list[Sequence[float]]] = {}
    for name, values in found.items():
        what, chunk, group, _ = name.split("/")
        if (what, chunk) == ("quiet", str(length)):
            groups.setdefault(group, []).append(values)
    ranked = {group: np.sort(np.concatenate(values)) for group, values in groups.items()}
    # Of the values of a group, the share that is as large or larger; then the least of a chunk over all features.
    shares = [1 - np.searchsorted(ranked[g], v) / len(ranked[g]) for g, values in groups.items() for v in values]
    least = np.min(shares, axis=0)
    share = 0.0
    for candidate in np.unique(least):
        alarms = [int(i) * length for i in np.flatnonzero(least <= candidate)]
        if incidents(alarms) > allowed:
            break
        share = float(candidate)
    return {g: float(v[len(v) - 1 - math.floor(share * len(v) + ROUNDING)]) for g, v in ranked.items()}


def _first(alarms: NDArray[np.bool_], length: int) -> float:
    return float((int(alarms.argmax()) + 1) * length) if alarms.any() else math.inf


def _river(peer: str, streams: Streams, allowed: int) -> dict[str, dict[str, list[float]]]:
    """Delays to the end of the hour in which a detector alarms, as a look at the end of each hour sees it."""
    data: dict[str, Any] = {"before": BEFORE * ROWS_PER_HOUR, "rows_per_hour": ROWS_PER_HOUR}
    for feature, rows in streams.quiet.items():
        for part, stream in _as_numbers(feature, rows).items():
            data[f"quiet/{part}"] = stream
    for name, change in CHANGES.items():
        part = {LEVELS: f"{change.feature}=0", HOLED: f"{change.feature} missing"}.get(change.group, change.feature)
        data[f"changed/{name}"] = np.array([_as_numbers(change.feature, s)[part] for s in streams.changed[name]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "streams.npz"
        np.savez(path, allow_pickle=False, **data)
        found = ask(peer, "alarms", str(path), str(allowed), str(APART))
    return {
        f"river's {detector}": {
            name: [row // ROWS_PER_HOUR + 1.0 if row >= 0 else math.inf for row in rows]
            for name, rows in answer["first"].items()
        }
        for detector, answer in found.items()
    }


def _as_numbers(feature: str, rows: Rows) -> dict[str, Rows]:
    """Streams of mean 0 and variance 1: the number, each level, whether it is missing."""
    if feature in SHARES:
        return {f"{feature}={i}": ((rows == i) - p) / math.sqrt(p * (1 - p)) for i, p in enumerate(SHARES[feature])}
    if feature != "holed":
        return {feature: rows}
    missing = (np.isnan(rows) - MISSING) / math.sqrt(MISSING * (1 - MISSING))
    return {feature: np.nan_to_num(rows), f"{feature} missing": missing}


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if math.isfinite(hours) else f"over {AFTER}"
