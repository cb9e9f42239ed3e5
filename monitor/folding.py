"""Profiles of whole hours: added up once, so that reading them costs the same however many batches brought them.

A batch's own profiles are never touched. An hour is always made anew as a whole, and counts only as long as nothing was
written to its batches since: each write leaves a mark behind its rows, and an hour knows how many marks it has seen.

Batches do not stay for ever. A sum that is sealed stands for the batches in it: they may be removed, and a later sum of
the hour begins with the sealed one and leaves them out, even if they come again.
"""

from __future__ import annotations

import functools
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl
import structlog

from monitor.store import Parameter, Store
from monitor.store.literals import render

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS_AT_ONCE = 24
GENERATION_BITS = 32
GRACE = timedelta(hours=1)
"""Nobody takes so long to read or to make an hour."""
LATELY = timedelta(days=7)
OLD_SUMS = """
    generation < {before:UInt64}
    AND (environment, model, hour) IN
        (SELECT environment, model, hour FROM profile_folds WHERE folded >= {since:DateTime64(3, 'UTC')})
    AND (environment, model, hour, generation) NOT IN
        (SELECT environment, model, hour, generation FROM profile_folds FINAL)
    AND (environment, model, hour, generation) NOT IN
    (
        SELECT environment, model, hour, argMax(generation, (sealed, generation))
        FROM profile_seals
        GROUP BY environment, model, hour
    )
"""
REMOVE_SEALED = """
DELETE FROM profile_batches
WHERE minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
    AND toUnixTimestamp(toStartOfHour(minute)) IN {hours:Array(UInt64)}
    AND (environment, model, toUnixTimestamp(toStartOfHour(minute)), source, batch) IN
    (
        SELECT environment, model, toUnixTimestamp(hour), source, batch
        FROM sealed_batches
        WHERE hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
            AND toUnixTimestamp(hour) IN {hours:Array(UInt64)}
            AND (environment, model, hour, generation) IN
            (
                SELECT environment, model, hour, generation
                FROM profile_seals
                WHERE sealed <= {sealed_until:DateTime64(3, 'UTC')}
                    AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
            )
    )
SETTINGS allow_nondeterministic_mutations = 1
"""
"""Replicas are told to trust the inner question: what it reads was written long before."""


Offsets = tuple[str, int, int]
"""A log, and the first and the last of some offsets of it."""
log = structlog.get_logger()


class GoneError(LookupError):
    """What is asked for is not kept any more in the detail that it needs. The message says what is."""


@dataclass(frozen=True)
class Span:
    """From where the profiles of a span of time are read: whole hours that hold, and batches for the rest.

    The queries that read profiles take its ``parameters``. What is written to those hours meanwhile is not in them.

    hours
        Those that hold.
    generations
        Their sums.
    known
        All the hours that have something.
    bases
        The sums that other hours begin with.
    seals
        All sealed sums of those: the batches in them are left out.
    cut
        Hours that reach out of the span, and of which only the sum is left.
    """

    start: datetime
    end: datetime
    hours: Sequence[datetime]
    generations: Sequence[int]
    known: Sequence[datetime]
    bases: Sequence[int] = ()
    seals: Sequence[int] = ()
    cut: Sequence[datetime] = ()

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Of ``window_profiles`` and ``served``."""
        start, end = self._batches()
        return {
            "start": self.start,
            "end": self.end,
            "generations": [*self.generations, *self.bases],
            "folded_hours": [int(hour.timestamp()) for hour in self.hours],
            "batches_start": start,
            "batches_end": end,
            "seals": self.seals,
        }

    def _batches(self) -> tuple[datetime, datetime]:
        """From the first to the last hour that has something and does not hold as a whole."""
        rest = sorted(set(self.known) - set(self.hours))
        if not rest:
            return self.start, self.start
        return max(self.start, rest[0]), min(self.end, rest[-1] + HOUR)


@dataclass(frozen=True)
class Hours:
    """The hours of a model with profiles in a span of time, as they were at one moment.

    A window's queries may share it: what is written to those hours later is late, and sums stay for an hour after
    others took their place.

    table
        A row per hour: how often it was written to, its sum (``generation``, 0 where none holds) and when that was
        made, the sealed sum that it begins with (``base``) and all its sealed sums (``seals``).
    """

    environment: str
    model: str
    table: pl.DataFrame

    def marks(self, start: datetime, end: datetime) -> int:
        """How often the hours that a span touches were written to."""
        return int(self._touched(start, end)["marks"].sum())

    def stale(self, start: datetime, end: datetime) -> pl.DataFrame:
        """The whole hours of a span whose sums do not hold."""
        return self._within(start, end).filter(pl.col("generation") == 0)

    def span(self, start: datetime, end: datetime) -> Span:
        """From where the profiles of a span of time are read."""
        touched, whole = self._touched(start, end), self._within(start, end)
        held = whole.filter(pl.col("generation") > 0)
        hours, generations, known = held["hour"].to_list(), held["generation"].to_list(), touched["hour"].to_list()
        if held.height == touched.height:
            return Span(start, end, hours, generations, known)
        sealed = touched.filter((pl.col("base") > 0) & ~pl.col("hour").is_in(hours))
        based = sealed.filter(pl.col("hour").is_in(whole["hour"].to_list()))
        cut = sealed.filter(~pl.col("hour").is_in(based["hour"].to_list()))["hour"].to_list()
        return Span(start, end, hours, generations, known, based["base"].to_list(), _all(based["seals"]), cut)

    def _touched(self, start: datetime, end: datetime) -> pl.DataFrame:
        first = bisect_right(self._starts, start - HOUR)
        return self.table[first : bisect_left(self._starts, end)]

    def _within(self, start: datetime, end: datetime) -> pl.DataFrame:
        """The hours that lie in a span as a whole."""
        first = bisect_left(self._starts, start)
        return self.table[first : bisect_right(self._starts, end - HOUR)]

    @functools.cached_property
    def _starts(self) -> list[datetime]:
        return self.table["hour"].to_list()


def read_hours(store: Store, environment: str, model: str, start: datetime, end: datetime) -> Hours:
    """The hours that a span of time touches."""
    place = {"environment": environment, "model": model}
    return Hours(**place, table=store.query("profiled_hours", **place, start=start, end=end))


def span(store: Store, environment: str, model: str, start: datetime, end: datetime) -> Span:
    """Which hours of a span of time hold."""
    return read_hours(store, environment, model, start, end).span(start, end)


def fold(store: Store, environment: str, model: str, start: datetime, end: datetime, now: datetime) -> int:
    """Make the whole hours of a span of time that do not hold. Gives how many."""
    hours = read_hours(store, environment, model, start, end)
    add_up(store, hours, start, end, now)
    return hours.stale(start, end).height


def add_up(store: Store, hours: Hours, start: datetime, end: datetime, now: datetime) -> Hours:
    """Make the whole hours of a span of time that do not hold. Gives the hours with these sums.

    What was written to them since they were read is in the sums, or late.
    """
    stale = hours.stale(start, end)
    if stale.is_empty():
        return hours
    made = pl.concat([_fold(store, hours, some, now) for some in stale.iter_slices(HOURS_AT_ONCE)])
    return replace(hours, table=hours.table.update(made, on="hour"))


def seal(
    store: Store,
    environment: str,
    model: str,
    hours: Sequence[datetime],
    still_since: datetime,
    now: datetime,
    twice: Sequence[Offsets] = (),
) -> int:
    """Let sums stand for their batches, where they hold and nothing was written since a time. Gives how many hours.

    Only a sum of which all batches are there is sealed: they have as many events as it. Else one that comes in at this
    moment could be left out for ever. ``remove_sealed`` removes the batches.

    twice
        Where messages were taken in twice, see ``taken_in_twice``: what was sealed could not be taken out any more.
    """
    done = 0
    for start in range(0, len(hours), HOURS_AT_ONCE):
        some = hours[start : start + HOURS_AT_ONCE]
        done += _seal(store, environment, model, some, still_since, now, twice)
    return done


def taken_in_twice(store: Store, start: datetime, end: datetime) -> list[Offsets]:
    """Where batches of a log overlap, among those that arrived or were taken in in a span of time."""
    return [*store.query("offset_overlaps", start=start, end=end).iter_rows()]


def remove_sealed(store: Store, hours: Sequence[datetime], sealed_until: datetime) -> None:
    """Remove batches that are in sums sealed before a time, of some hours, of all models.

    That time should be a while ago, so that whoever began to read before has ended.
    """
    asked = {"start": min(hours), "end": max(hours) + HOUR, "sealed_until": sealed_until}
    store.execute(render(REMOVE_SEALED, {**asked, "hours": [int(hour.timestamp()) for hour in hours]}))


def remove_old_sums(store: Store, now: datetime) -> int:
    """Remove sums that others took the place of, among the hours that were lately added up. Gives how many rows."""
    before = int((now - GRACE).timestamp()) << GENERATION_BITS
    asked: dict[str, Parameter] = {"before": before, "since": now - LATELY}
    count = f"SELECT count() AS rows FROM profile_hours WHERE {OLD_SUMS}"  # noqa: S608 - our own words
    rows = int(store.select(count, **asked)["rows"][0])
    if rows:
        trusted = "SETTINGS allow_nondeterministic_mutations = 1"
        store.execute(render(f"DELETE FROM profile_hours WHERE {OLD_SUMS} {trusted}", asked))  # noqa: S608 - our own
    return rows


def mark(store: Store, profiles: pl.DataFrame) -> None:
    """Leave a mark on every hour that some profile rows belong to. To be called when they are written."""
    hours = profiles.select("environment", "model", hour=pl.col("minute").dt.truncate("1h")).unique()
    store.insert("profile_marks", hours.with_columns(marks=pl.lit(1, pl.UInt64)))


def sealed_hours_of(store: Store, source: str, batch: str) -> pl.DataFrame:
    """The hours in whose sealed sums a batch is; from those it cannot be taken out any more."""
    return store.query("seals_of_batch", source=source, batch=batch)


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


def _all(lists: pl.Series) -> list[int]:
    return [number for some in lists.to_list() for number in some]


def _fold(store: Store, of: Hours, hours: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The marks were counted before the batches are read: what comes in between is in the sum, or makes it stale."""
    place = {"environment": of.environment, "model": of.model}
    asked = {"start": hours["hour"][0], "end": hours["hour"][-1] + HOUR}
    numbers = [int(hour.timestamp()) for hour in hours["hour"]]
    begin_with = {"bases": [base for base in hours["base"] if base], "seals": _all(hours["seals"])}
    sums = store.query("hour_profiles", **place, **asked, **begin_with, hours=numbers).drop("filled")
    generations = pl.Series("generation", [_new_generation(now) for _ in numbers], pl.UInt64)
    named = hours.select("hour", "marks", generations, **{name: pl.lit(value) for name, value in place.items()})
    store.insert("profile_hours", sums.join(named.drop("marks"), on="hour"))
    store.insert("profile_folds", named.with_columns(folded=pl.lit(now)))
    return named.select("hour", "generation")


def _hours_read_twice(batches: pl.DataFrame, twice: Sequence[Offsets]) -> set[datetime]:
    """The hours of batches that have some of these offsets.

    >>> hours = pl.Series([EPOCH, EPOCH + HOUR]).cast(pl.Datetime("ms", "UTC"))
    >>> some = pl.DataFrame({"hour": hours, "source": ["kafka/t/0/log"] * 2, "batch": ["0", "10"], "last": [9, 19]})
    >>> [hour.hour for hour in _hours_read_twice(some, [("kafka/t/0/log", 15, 30), ("kafka/t/1/log", 0, 30)])]
    [1]
    """
    hours: set[datetime] = set()
    for source, lowest, highest in twice:
        of_log = batches.filter(source=source).with_columns(first=pl.col("batch").cast(pl.Int64))
        hours.update(of_log.filter(pl.col("first") <= highest, pl.max_horizontal("first", "last") >= lowest)["hour"])
    return hours


def _new_generation(now: datetime) -> int:
    """A number that nobody has, and that tells when it was given."""
    return int(now.timestamp()) << GENERATION_BITS | secrets.randbits(GENERATION_BITS) | 1


def _seal(
    store: Store,
    environment: str,
    model: str,
    hours: Sequence[datetime],
    still_since: datetime,
    now: datetime,
    twice: Sequence[Offsets],
) -> int:
    place = {"environment": environment, "model": model}
    asked = {"start": hours[0], "end": hours[-1] + HOUR}
    known = store.query("profiled_hours", **place, **asked).filter(pl.col("hour").is_in(list(hours)))
    held = known.filter((pl.col("generation") > 0) & (pl.col("folded") <= still_since))
    sealed = held.filter(pl.col("base") > 0)
    bases = dict(sealed.select("hour", "base").iter_rows())
    numbers = [int(hour.timestamp()) for hour in held["hour"]]
    batches = store.query("batches_to_seal", **place, **asked, hours=numbers, seals=_all(sealed["seals"]))
    generations = [*held["generation"].to_list(), *bases.values()]
    read_twice = _hours_read_twice(batches, twice)
    if read_twice:
        told = [f"{hour:%Y-%m-%dT%H:%MZ}" for hour in sorted(read_twice)]
        log.warning(
            "hours keep their batches, as messages that were taken in twice are not repaired", **place, hours=told
        )
    sums = store.query("audit_sums", **place, **asked, generations=generations)
    sizes = {(hour, generation): events for hour, generation, events in sums.iter_rows()}
    counted = dict(batches.group_by("hour").agg(pl.col("events").sum()).iter_rows())
    whole = [
        (hour, generation)
        for hour, generation in held.select("hour", "generation").iter_rows()
        if hour not in read_twice
        and hour in counted
        and counted[hour] + sizes.get((hour, bases.get(hour)), 0) == sizes.get((hour, generation), 0)
    ]
    if not whole:
        return 0
    named = pl.DataFrame(whole, {"hour": held.schema["hour"], "generation": pl.UInt64}, orient="row").with_columns(
        **{name: pl.lit(value) for name, value in place.items()}
    )
    store.insert("sealed_batches", batches.drop("events").join(named, on="hour"))
    store.insert("profile_seals", named.with_columns(sealed=pl.lit(now)))  # from here on it counts
    return len(whole)
