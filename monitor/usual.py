"""What is usual of a model: the traffic of the same hours in the weeks before, and the scores of earlier windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.calibration import LEAST_SPAN, Past, Usual, kept
from detectors.finding import Finding, Subject, Window
from detectors.layout import Layout
from detectors.seasons import SLOTS, SPAN, BySlot, expectation
from monitor.folding import HOUR, Hours, Span, read_hours
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import combined, floor, is_due, vectors

LEAST_COVERED = 0.9
"""Share of a window's rows whose hours must have a past, for the past to be what it is held against."""
HISTORY = "history"
"""What the baseline is called."""
EPOCH = date(1970, 1, 1)
MILLISECOND = timedelta(milliseconds=1)
CONTRASTS_KEPT = timedelta(days=14)
"""Of so many days are the scores of servers and versions: both sides are of the same hours, so no season is in them."""
SCORED = frozenset({"drift", "server_outlier", "version_contrast"})
"""Detectors of which past scores say what is usual."""
PLACES = ("detector", "baseline", "version", "server", "segment")
SEPARATOR = "\x1f"
TIME = pl.Datetime("ms", "UTC")
SCORE_ROWS: Mapping[str, Any] = {
    "start": TIME,
    "end": TIME,
    **dict.fromkeys((*PLACES, "feature"), pl.String),
    "exposure": pl.Float64,
    "score_name": pl.String,
    **dict.fromkeys(("score", "calibrated"), pl.Float64),
}
NO_ROWS = pl.DataFrame(schema={name: SCORE_ROWS[name] for name in ("start", "feature", "score_name", "calibrated")})
Place = tuple[str, str, str, str, str]
"""Detector, baseline, version, server and segment."""


@dataclass(frozen=True)
class Expected:
    """What the hours of a window usually hold.

    counts
        Over the layout, as a reference has them; ``segments`` those of each segment that has a past.
    exposures
        By feature, and by segment before it; see ``detectors.seasons.Expectation``.
    now, before
        The traffic by slot that it is made from.
    """

    layout: Layout
    counts: NDArray[np.float64]
    segments: Mapping[str, NDArray[np.float64]]
    exposures: Mapping[tuple[str, str], float]
    now: Mapping[str, BySlot] = field(repr=False)
    before: Mapping[str, BySlot] = field(repr=False)

    def without(self, segments: Sequence[str]) -> NDArray[np.float64]:
        """What everything but some segments usually holds: segments have their hours, so it is no difference of two."""
        sides = [_less(side[""], [side[name] for name in segments]) for side in (self.now, self.before)]
        return _expected_of(self.layout, *sides)[0]

    def exposures_of(self, segment: str) -> dict[str, float]:
        """Those of one segment, or of everything."""
        return {feature: value for (of, feature), value in self.exposures.items() if of == segment}


@dataclass(frozen=True)
class UsualScores:
    """The scores of earlier windows of one length, by place."""

    length: timedelta = HOUR
    rows: Mapping[Place, pl.DataFrame] = field(default_factory=dict)
    _made: dict[Place, Usual] = field(default_factory=dict, init=False)

    def of(self, detector: str, baseline: str, subject: Subject, *, lasting: bool = False) -> Usual | None:
        """Those of a subject; None where it had none. Where a place is left out, those of the whole are as good."""
        place = (detector, baseline, subject.version, subject.server, subject.segment)
        if place in self.rows and place not in self._made:
            trails = SPAN if baseline == HISTORY else None
            self._made[place] = self._make(self.rows[place], trails, lasting=lasting)
        return self._made.get(place)

    def calibrated(self, detector: str, baseline: str, subject: Subject) -> pl.DataFrame:
        """Calibrated scores of a subject: start, feature, score_name and calibrated, NaN before that was possible."""
        place = (detector, baseline, subject.version, subject.server, subject.segment)
        rows = self.rows.get(place)
        return (NO_ROWS if rows is None else rows).select(NO_ROWS.columns)

    def _make(self, rows: pl.DataFrame, trails: timedelta | None, *, lasting: bool) -> Usual:
        since_first = rows["start"] - rows["start"].min()
        windows = (since_first.dt.total_milliseconds() // (self.length // MILLISECOND)).to_numpy()
        named = rows.select(pl.concat_str("feature", "score_name", separator=SEPARATOR)).to_series()
        columns = _numbered(named)
        names = [tuple(name.split(SEPARATOR)) for name in named.unique().sort().to_list()]
        z = np.full((windows.max() + 1, len(names)), np.nan)
        exposure = np.full(z.shape, np.nan)
        z[windows, columns] = rows["score"].to_numpy()
        exposure[windows, columns] = rows["exposure"].to_numpy()
        past = Past(z, exposure, self.length, self.length, trails)
        return Usual({(feature, score): i for i, (feature, score) in enumerate(names)}, past, lasting)


@dataclass
class Learned:
    """Scores of windows that were measured and are not kept, such as those of a replay."""

    _rows: list[pl.DataFrame] = field(default_factory=list)

    def take(self, findings: Sequence[Finding]) -> None:
        """Remember the scores of a window."""
        scored = [f for f in findings if f.scores and not f.subject.without and f.detector in SCORED]
        scored = [f for f in scored if not f.baseline.startswith("reference:")]
        rows = [
            (
                *(f.window.start, f.window.end, f.detector, f.baseline),
                *(f.subject.version, f.subject.server, f.subject.segment, f.subject.feature),
                *(float(f.exposure), name, float(score), float(f.calibrated.get(name, math.nan))),
            )
            for f in scored
            for name, score in f.scores.items()
        ]
        self._rows.append(pl.DataFrame(rows, schema=SCORE_ROWS, orient="row"))

    def between(
        self, since: datetime, contrasts_since: datetime, until: datetime, length: timedelta, phase: timedelta
    ) -> pl.DataFrame:
        """What the query ``past_scores`` gives of those that are kept."""
        if len(self._rows) > 1:
            self._rows = [pl.concat(self._rows, rechunk=True)]
        start, end, detector = (pl.col(name) for name in ("start", "end", "detector"))
        of_length = (end - start == length) & (
            (start.dt.timestamp("ms") % (length // MILLISECOND)) == phase // MILLISECOND
        )
        lately = (end <= until) & (end > pl.when(detector == "drift").then(since).otherwise(contrasts_since))
        return self._rows[0].filter(of_length & lately) if self._rows else pl.DataFrame(schema=SCORE_ROWS)


def read_usual_scores(store: Store, model: Model, window: Window, learned: Learned | None = None) -> UsualScores:
    """The scores of the windows of the same length in the weeks before, side by side.

    Of a window that is judged by itself those that begin at its own hour: one that holds a whole day there differs more
    than one that holds parts of two. Of one that somebody asked for those that are counted from 1970-01-01T00:00Z.

    learned
        Scores that are not kept, and count instead of those that are.
    """
    length = window.end - window.start
    phase = window.start - floor(window.start, length) if is_due(model, window) else timedelta(0)
    span = {
        "since": window.start - kept(length),
        "contrasts_since": window.start - max(CONTRASTS_KEPT, 10 * length),
        "until": window.start,
    }
    rows = store.query(
        "past_scores",
        environment=model.environment,
        model=model.name,
        **span,
        seconds=length // timedelta(seconds=1),
        phase=phase // timedelta(seconds=1),
    )
    if learned is not None:
        of_learned = learned.between(**span, length=length, phase=phase).select(rows.columns)
        rows = pl.concat([of_learned, rows.cast(of_learned.schema)]).unique(
            [*PLACES, "start", "feature", "score_name"], keep="first"
        )
    places = rows.partition_by(*PLACES, as_dict=True)
    return UsualScores(
        length, {(str(d), str(b), str(v), str(s), str(g)): rows for (d, b, v, s, g), rows in places.items()}
    )


def read_expected(
    store: Store, model: Model, window: Window, version: str = "", known: Hours | None = None
) -> Expected | None:
    """What the hours of a window hold by the weeks before; None where those are too short, or not by whole hours.

    version
        Only its traffic; empty for that of all.
    known
        The hours of a span that holds the window and those weeks; they are read where that was not done yet.
    """
    layout = model.layout
    if layout is None or window.start != _hour(window.start) or window.end != _hour(window.end):
        return None
    since = window.start - SPAN
    held = (known or read_hours(store, model.environment, model.name, since, window.end)).span(since, window.end)
    if not held.known or window.start - held.known[0] < LEAST_SPAN:
        return None
    before, now = _read(store, model, layout, window, version, held)
    if before is None or now is None or window.start - before.since < LEAST_SPAN:
        return None
    if "" not in now.segments or "" not in before.segments:
        return None
    found: dict[str, NDArray[np.float64]] = {}
    exposures: dict[tuple[str, str], float] = {}
    for segment, of_window in now.segments.items():
        past = before.segments.get(segment)
        if past is not None and _covered(of_window, past) >= LEAST_COVERED:
            found[segment], of_features = _expected_of(layout, of_window, past)
            exposures |= {(segment, feature): exposure for feature, exposure in of_features.items()}
    if "" not in found:
        return None
    return Expected(layout, found.pop(""), found, exposures, now.segments, before.segments)


@dataclass(frozen=True)
class _Slots:
    """Traffic by slot, of each segment (empty: everything), and its first hour."""

    segments: Mapping[str, BySlot]
    since: datetime


def _read(
    store: Store, model: Model, layout: Layout, window: Window, version: str, held: Span
) -> tuple[_Slots | None, _Slots | None]:
    """The weeks before a window, and the window; None for what holds nothing."""
    rows = store.query(
        "slot_profiles",
        environment=model.environment,
        model=model.name,
        version=version,
        layout_id=layout.id,
        window_start=window.start,
        timezone=model.spec.timezone,
        holidays=[(day - EPOCH).days for day in model.spec.holidays],
        **held.parameters,
    )
    sides = rows.partition_by("in_window", as_dict=True, maintain_order=True)
    return _slots(sides.get((0,)), layout), _slots(sides.get((1,)), layout)


def _slots(rows: pl.DataFrame | None, layout: Layout) -> _Slots | None:
    if rows is None:
        return None
    first = datetime.fromtimestamp(rows["hours"].list.min().min(), UTC)  # type: ignore[arg-type]  # they are numbers
    return _Slots(dict(_by_slot(rows, layout)), first)


def _by_slot(rows: pl.DataFrame, layout: Layout) -> Iterator[tuple[str, BySlot]]:
    for (segment,), of_segment in rows.partition_by("segment", as_dict=True, maintain_order=True).items():
        counts, hours = np.zeros((SLOTS, layout.size)), np.zeros(SLOTS)
        matrix, slots, hours_of = vectors(of_segment, layout.size), of_segment["slot"].to_numpy(), of_segment["hours"]
        weights, numbers = of_segment["weight"].to_numpy(), of_segment["rows"].to_numpy().astype(np.float64)
        for at in np.unique(slots):
            here = np.flatnonzero(slots == at)
            counts[at] = combined(matrix[here], weights[here], numbers[here])
            hours[at] = len(set().union(*(hours_of[int(row)].to_list() for row in here)))
        yield str(segment), BySlot(counts, hours)


def _expected_of(layout: Layout, window: BySlot, past: BySlot) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Counts over the layout, and the exposure of each feature."""
    counts, exposures = np.zeros(layout.size), {}
    for feature in layout.features:
        here = layout.spans[feature.name]
        expected = expectation(window.part(here), past.part(here))
        counts[here] = expected.baseline
        exposures[feature.name] = expected.exposure
    return counts, exposures


def _less(whole: BySlot, parts: Sequence[BySlot]) -> BySlot:
    return BySlot(np.maximum(whole.counts - sum(part.counts for part in parts), 0.0), whole.hours)


def _covered(window: BySlot, past: BySlot) -> float:
    """Share of the window's rows in hours that have a past. Each feature counts all rows, so all of them tell."""
    rows = window.counts.sum(axis=1)
    return float(rows[past.counts.any(axis=1)].sum() / rows.sum()) if rows.any() else 0.0


def _numbered(values: pl.Series) -> NDArray[np.int64]:
    """The place of each value among the distinct ones, in order."""
    return values.rank("dense").to_numpy().astype(np.int64) - 1


def _hour(at: datetime) -> datetime:
    return at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % HOUR
