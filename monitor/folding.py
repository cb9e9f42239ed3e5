"""Profiles of whole hours: added up once, so that reading them costs the same however many batches brought them.

A batch's own profiles are never touched. An hour is always made anew as a whole, and counts only as long as nothing was
written to its batches since: each write leaves a mark behind its rows, and an hour knows how many marks it has seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitor.store import Parameter, Store

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Span:
    """From where the profiles of a span of time are read: whole hours that hold, and batches for the rest.

    The queries that read profiles take its ``parameters``. What is written to those hours meanwhile is not in them.
    """

    start: datetime
    end: datetime
    hours: Sequence[datetime]
    generations: Sequence[int]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Of ``window_profiles`` and ``served``."""
        start, end = self._batches()
        return {
            "start": self.start,
            "end": self.end,
            "generations": self.generations,
            "folded_hours": [int(hour.timestamp()) for hour in self.hours],
            "batches_start": start,
            "batches_end": end,
        }

    def _batches(self) -> tuple[datetime, datetime]:
        """The span without the hours that hold at its beginning and at its end."""
        start, end = self.start, self.end
        held = set(self.hours)
        while start in held:
            start += HOUR
        while end - HOUR in held and end > start:
            end -= HOUR
        return start, end


def span(store: Store, environment: str, model: str, start: datetime, end: datetime) -> Span:
    """Which hours of a span of time hold."""
    hours = _hours(store, environment, model, start, end).filter(pl.col("generation") > 0)
    return Span(start, end, hours["hour"].to_list(), hours["generation"].to_list())


def fold(store: Store, environment: str, model: str, start: datetime, end: datetime, now: datetime) -> int:
    """Make the whole hours of a span of time that do not hold. Gives how many."""
    stale = _hours(store, environment, model, start, end).filter(pl.col("generation") == 0)
    for hour, marks in stale.select("hour", "marks").iter_rows():
        _fold_hour(store, environment, model, hour, marks, now)
    return stale.height


def mark(store: Store, profiles: pl.DataFrame) -> None:
    """Leave a mark on every hour that some profile rows belong to. To be called when they are written."""
    hours = profiles.select("environment", "model", hour=pl.col("minute").dt.truncate("1h")).unique()
    store.insert("profile_marks", hours.with_columns(marks=pl.lit(1, pl.UInt64)))


def count_hours(
    at: NDArray[np.float64], prediction_rows: NDArray[np.bool_], feature_rows: NDArray[np.bool_]
) -> pl.DataFrame:
    """What a batch has of each hour: events, and the rows that are kept of them. ``at``: epoch seconds of the events.

    >>> at, all_kept, one_kept = np.array([10.0, 3700.0, 20.0]), np.array([True] * 3), np.array([True, False, False])
    >>> count_hours(at, all_kept, one_kept).drop("hour").rows()
    [(2, 2, 1), (1, 1, 0)]
    """
    hours, of_event = np.unique(at // 3600, return_inverse=True)
    size = len(hours)
    return pl.DataFrame(
        {
            "hour": pl.Series((hours * 3_600_000).astype(np.int64)).cast(pl.Datetime("ms", "UTC")),
            "events": np.bincount(of_event, minlength=size).astype(np.uint64),
            "prediction_rows": np.bincount(of_event[prediction_rows], minlength=size).astype(np.uint64),
            "feature_rows": np.bincount(of_event[feature_rows], minlength=size).astype(np.uint64),
        }
    )


def _hours(store: Store, environment: str, model: str, start: datetime, end: datetime) -> pl.DataFrame:
    """The hours that lie in a span as a whole."""
    hours = store.query("profiled_hours", environment=environment, model=model, start=start, end=end)
    return hours.filter(pl.col("hour") <= end - HOUR)


def _fold_hour(store: Store, environment: str, model: str, hour: datetime, marks: int, now: datetime) -> None:
    """The marks were counted before the batches are read: what comes in between is in the sum, or makes it stale."""
    sums = store.query("hour_profiles", environment=environment, model=model, hour=hour).drop("filled")
    named = {
        "environment": pl.lit(environment),
        "model": pl.lit(model),
        "hour": pl.lit(hour),
        "generation": pl.lit(secrets.randbits(63) | 1, pl.UInt64),
    }
    store.insert("profile_hours", sums.with_columns(**named))
    fold = pl.select(*(value.alias(name) for name, value in named.items()))
    store.insert("profile_folds", fold.with_columns(marks=pl.lit(marks, pl.UInt64), folded=pl.lit(now)))
