"""Profiles of whole hours: added up once, so that reading them costs the same however many batches brought them.

A batch's own profiles are never touched. An hour is always made anew as a whole, and counts only as long as nothing was
written to its batches since: each write leaves a mark behind its rows, and an hour knows how many marks it has seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from monitor.store import Parameter, Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS_AT_ONCE = 24


@dataclass(frozen=True)
class Span:
    """From where the profiles of a span of time are read: whole hours that hold, and batches for the rest.

    ``known`` are all the hours that have something. The queries that read profiles take its ``parameters``. What is
    written to those hours meanwhile is not in them.
    """

    start: datetime
    end: datetime
    hours: Sequence[datetime]
    generations: Sequence[int]
    known: Sequence[datetime]

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
        """From the first to the last hour that has something and does not hold as a whole."""
        rest = sorted(set(self.known) - set(self.hours))
        if not rest:
            return self.start, self.start
        return max(self.start, rest[0]), min(self.end, rest[-1] + HOUR)


def span(store: Store, environment: str, model: str, start: datetime, end: datetime) -> Span:
    """Which hours of a span of time hold."""
    known = store.query("profiled_hours", environment=environment, model=model, start=_hour_of(start), end=end)
    whole = (pl.col("hour") >= start) & (pl.col("hour") <= end - HOUR)
    held = known.filter(whole & (pl.col("generation") > 0))
    return Span(start, end, held["hour"].to_list(), held["generation"].to_list(), known["hour"].to_list())


def fold(store: Store, environment: str, model: str, start: datetime, end: datetime, now: datetime) -> int:
    """Make the whole hours of a span of time that do not hold. Gives how many."""
    stale = _hours(store, environment, model, start, end).filter(pl.col("generation") == 0)
    for some in stale.iter_slices(HOURS_AT_ONCE):
        _fold(store, environment, model, some.select("hour", "marks"), now)
    return stale.height


def mark(store: Store, profiles: pl.DataFrame) -> None:
    """Leave a mark on every hour that some profile rows belong to. To be called when they are written."""
    hours = profiles.select("environment", "model", hour=pl.col("minute").dt.truncate("1h")).unique()
    store.insert("profile_marks", hours.with_columns(marks=pl.lit(1, pl.UInt64)))


def count_hours(profiles: pl.DataFrame, predictions: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """What a batch has of each hour of each model: events, and the rows of both kinds that are kept of them.

    >>> place = {"environment": ["e"] * 3, "model": ["m"] * 3}
    >>> times = pl.Series([EPOCH + HOUR, EPOCH, EPOCH]).cast(pl.Datetime("ms", "UTC"))
    >>> profiles = pl.DataFrame(place).with_columns(minute=times, segment=pl.Series(["", "", "a=b"]), n=2)
    >>> rows = pl.DataFrame(place).with_columns(timestamp=times)[:1]
    >>> count_hours(profiles, rows, rows.clear()).sort("hour").drop("hour").rows()
    [('e', 'm', 2, 0, 0), ('e', 'm', 2, 1, 0)]
    """
    place = ["environment", "model"]
    whole = profiles.lazy().filter(pl.col("segment") == "")
    every = whole.group_by(*place, hour=pl.col("minute").dt.truncate("1h")).agg(events=pl.col("n").sum())
    for name, rows in (("prediction_rows", predictions), ("feature_rows", features)):
        hour = pl.col("timestamp").dt.truncate("1h")
        kept = rows.lazy().group_by(*place, hour=hour).agg(pl.len().cast(pl.UInt64).alias(name))
        every = every.join(kept, on=[*place, "hour"], how="left")
    return every.with_columns(pl.col("prediction_rows", "feature_rows").fill_null(0)).collect()


def _hour_of(at: datetime) -> datetime:
    return at - (at - EPOCH) % HOUR


def _hours(store: Store, environment: str, model: str, start: datetime, end: datetime) -> pl.DataFrame:
    """The hours that lie in a span as a whole."""
    hours = store.query("profiled_hours", environment=environment, model=model, start=start, end=end)
    return hours.filter(pl.col("hour") <= end - HOUR)


def _fold(store: Store, environment: str, model: str, hours: pl.DataFrame, now: datetime) -> None:
    """The marks were counted before the batches are read: what comes in between is in the sum, or makes it stale."""
    place = {"environment": environment, "model": model}
    asked = {"start": hours["hour"][0], "end": hours["hour"][-1] + HOUR}
    numbers = [int(hour.timestamp()) for hour in hours["hour"]]
    sums = store.query("hour_profiles", **place, **asked, hours=numbers).drop("filled")
    generations = pl.Series("generation", [secrets.randbits(63) | 1 for _ in numbers], pl.UInt64)
    named = hours.with_columns(generations, **{name: pl.lit(value) for name, value in place.items()})
    store.insert("profile_hours", sums.join(named.drop("marks"), on="hour"))
    store.insert("profile_folds", named.with_columns(folded=pl.lit(now)))
