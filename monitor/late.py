"""Events and labels that come in after their window was judged: which are to be judged again, and when.

What a window was judged on is kept: how often its hours had been written to before they were read, and a digest of
what was read. A window whose hours were written to since is looked at again once they are left alone; it is judged
again only if its events are others. So a batch that is taken in twice changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from alerts.ledger import LATE_CLAIMS
from detectors.finding import Window
from monitor.config import ModelSpec
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import Traffic, floor

Kind = Literal["traffic", "labels"]
STILL = timedelta(minutes=1)
"""Hours that were written to are left alone for so long before their windows are looked at."""
LONGEST_WAIT = timedelta(minutes=15)
HOUR = timedelta(hours=1)
RESOLUTION = timedelta(milliseconds=1)
"""Hours that are written to all the time are not waited for any longer."""


@dataclass(frozen=True)
class Judgement:
    """What a window was judged on.

    marks
        How often its hours had been written to.
    events
        How many there were.
    digest
        The same for the same events.
    """

    window: Window
    kind: Kind
    marks: int
    events: int
    digest: str


@dataclass(frozen=True)
class LateWindow:
    """A judged window whose hours were written to since, and the marks that they have by now."""

    judged: Judgement
    marks: int


@dataclass(frozen=True)
class _Stirred:
    marks: int
    first_seen: datetime
    changed: datetime


class LateWindows:
    """Watches all judged windows with one query."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stirred: dict[tuple[Window, Kind], _Stirred] = {}

    def due(self, now: datetime) -> list[LateWindow]:
        """The windows to look at, oldest first: their hours were written to, and are left alone by now."""
        late = [_late_window(row) for row in self._store.query("late_windows", now=now).rows(named=True)]
        stirred = {}
        for each in late:
            key = (each.judged.window, each.judged.kind)
            known = self._stirred.get(key) or _Stirred(each.marks, now, now)
            stirred[key] = known if known.marks == each.marks else _Stirred(each.marks, known.first_seen, now)
        ripe = {key for key, each in stirred.items() if _is_ripe(key[0], each, now)}
        # What comes after those were looked at has its own time.
        self._stirred = {key: each for key, each in stirred.items() if key not in ripe}
        return [each for each in late if (each.judged.window, each.judged.kind) in ripe]


def count_marks(store: Store, window: Window, labels_until: datetime) -> int:
    """How often the hours of a window were written to, and labels that may count in it. Asked before they are read.

    labels_until
        When the labels of its last predictions are due.
    """
    place = {"environment": window.environment, "model": window.model}
    span = {"start": window.start, "end": window.end, "labels_until": labels_until}
    return int(store.query("window_marks", **place, **span)["marks"][0])


def mark_labels(store: Store, labels: pl.DataFrame) -> None:
    """Leave a mark on every hour in which some labels became known. To be called when they are written."""
    if not labels.is_empty():
        hours = labels.select("environment", "model", hour=pl.col("timestamp").dt.truncate("1h")).unique()
        store.insert("label_marks", hours.with_columns(marks=pl.lit(1, pl.UInt64)))


def watched_for(spec: ModelSpec, kind: Kind) -> timedelta:
    """How long after its end a judged window is watched: as long as batches' own profiles are kept."""
    return (spec.label_delay if kind == "labels" else timedelta(0)) + spec.retention.minutes


def late_kind(kind: str, marks: int) -> str:
    """What a window is judged on again, as claims name it: once for each state of its hours."""
    return f"{kind}{LATE_CLAIMS}{marks}"


def judged_traffic(window: Window, marks: int, traffic: Traffic) -> Judgement:
    """That a window was judged on this traffic."""
    return Judgement(window, "traffic", marks, traffic.rows_of_all(), _digest(traffic.table, traffic.matrix.tobytes()))


def judged_outcomes(window: Window, marks: int, outcomes: pl.DataFrame) -> Judgement:
    """That a window was judged on these outcomes. Sums may differ in their last digits from one read to the next."""
    rounded = outcomes.with_columns(pl.col(pl.Float64).round_sig_figs(9))
    return Judgement(window, "labels", marks, int(outcomes["predictions"].sum()), _digest(rounded))


def save_judgement(store: Store, judgement: Judgement, model: Model, now: datetime) -> None:
    """Keep what a window was judged on; the latest counts."""
    window = judgement.window
    row = {
        "environment": window.environment,
        "model": window.model,
        "kind": judgement.kind,
        "start": window.start,
        "end": window.end,
        "marks": judgement.marks,
        "events": judgement.events,
        "digest": judgement.digest,
        "labels_until": window.end + model.spec.label_delay,
        "watched_until": window.end + watched_for(model.spec, judgement.kind),
        "judged": now,
    }
    unsigned = {"marks": pl.UInt64, "events": pl.UInt64}
    store.insert("judgements", pl.DataFrame([row], schema_overrides=unsigned))


def _late_window(row: dict[str, object]) -> LateWindow:
    window = Window(*(row[name] for name in ("environment", "model", "start", "end")))  # type: ignore[arg-type]  # of a query
    judged = Judgement(window, *(row[name] for name in ("kind", "marks", "events", "digest")))  # type: ignore[arg-type]  # the same
    return LateWindow(judged, row["marks_now"])  # type: ignore[arg-type]  # the same


def _is_ripe(window: Window, stirred: _Stirred, now: datetime) -> bool:
    """Not while its last hour goes on: the others' events of that hour are not late."""
    if now < floor(window.end - RESOLUTION, HOUR) + HOUR:
        return False
    return now - stirred.changed >= STILL or now - stirred.first_seen >= LONGEST_WAIT


def _digest(table: pl.DataFrame, more: bytes = b"") -> str:
    return hashlib.sha256(table.write_csv(separator="\x1f").encode() + more).hexdigest()[:32]
