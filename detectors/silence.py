"""Silence: somebody who served steadily has no rows, although there should be some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from detectors.finding import Finding, Status, Subject, Window

Floats = NDArray[np.float64]
CHANCE = 1e-9
"""A silence that is likelier than this is nothing to speak of."""
LEAST_HOURS = 12
"""Who served in fewer hours has not served steadily."""
DAY, WEEK = 24, 7 * 24
BLOCK = 10
"""Minutes before its last row in which a subject's latest share is measured."""
OTHERS_BEFORE = 2
"""Who fell silent like that so often before comes and goes."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one subject served in consecutive hours of the past, and in the minutes since.

    rows, rest
        Per hour, oldest first: rows, and the share of the hour from the last minute with rows on, that one included.
        ``rest`` means nothing where there are no rows.
    minutes
        Rows per minute since those hours. They begin with an hour, and are at least sixty.
    """

    rows: Floats
    rest: Floats
    minutes: Floats


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a subject has been silent at the end of its record, in rows.

    expected
        Rows that it should have had since its last one.
    usual
        Upper bound of how many it usually should have had since its last one, at any time. Rows that come in clumps
        make it large, as do pauses.
    hours
        Hours in which it had rows.
    before
        How often it fell as silent in the hours before.
    minutes
        How long it has been silent, in minutes.
    """

    expected: float
    usual: float
    hours: int
    before: int
    minutes: int

    @property
    def steady(self) -> bool:
        """Whether it has served long enough to know how silent it usually is."""
        return self.hours >= LEAST_HOURS

    @property
    def severity(self) -> float:
        """Above 1 the silence is no chance, where silences fade exponentially."""
        return self.expected / (self.usual * -math.log(CHANCE))


def of_share(subject: Record, model: Record) -> Silence | None:
    """The silence of a server or version, measured by the rows that its model got meanwhile. None: it never served.

    Its share of the model's rows is the least of three: of a day, of the last hour and of the last minutes before its
    last row. So neither quiet nights nor a share that was turned down make a silence.
    """
    hours = np.flatnonzero(subject.rows)
    if not len(hours):
        return None
    last = int(hours[-1])
    day = slice(max(last - DAY + 1, int(hours[0])), last + 1)
    shares = [subject.rows[day].sum() / model.rows[day].sum()]
    seen = np.flatnonzero(subject.minutes)
    if len(seen):
        final = int(seen[-1]) + 1
        shares += [_share(subject.minutes, model.minutes, slice(start, final)) for start in (0, max(0, final - BLOCK))]
        since, minutes = model.minutes[final:].sum(), len(model.minutes) - final
    else:
        served = model.rows[last] * min(1.0, 1.0 - subject.rest[last] + 1 / 60)
        shares.append(min(1.0, subject.rows[last] / max(served, 1.0)))
        since = model.rows[last + 1 :].sum() + model.minutes.sum()
        minutes = 60 * (len(model.rows) - last - 1) + len(model.minutes)
    expected = subject.rows.sum() / model.rows[hours[0] :].sum() * model.rows
    return _silence(subject, expected, hours, float(min(shares) * since), minutes)


def of_season(model: Record) -> Silence | None:
    """The silence of a whole model, measured by what it got a week and two weeks ago at that time. None: not known yet.

    What is expected in an hour is the least of that hour and its neighbours in those weeks. So a model is never
    expected to serve when it did not a week ago, nor an hour before or after that.
    """
    hours = np.flatnonzero(model.rows)
    if not len(hours):
        return None
    expected = _season(model.rows, int(hours[0]))
    minutes = model.minutes
    seen = np.flatnonzero(minutes)
    per_minute = np.repeat(expected[len(model.rows) :], 60)[: len(minutes)] / 60
    if len(seen):
        gap, length = per_minute[int(seen[-1]) + 1 :].sum(), len(minutes) - int(seen[-1]) - 1
    else:
        last = int(hours[-1])
        gap = expected[last + 1 : len(model.rows)].sum() + per_minute.sum()
        length = 60 * (len(model.rows) - last - 1) + len(minutes)
    if np.isnan(per_minute).any():
        return None
    return _silence(model, np.nan_to_num(expected[: len(model.rows)]), hours, float(gap), length)


def silence_finding(
    window: Window, subject: Subject, silence: Silence | None, rows: int, *, explained: str = ""
) -> Finding:
    """Detector ``silence``: ``value`` is how many rows should have come since the last one.

    Its severity is above 1 when that is so many more than usual that it is no chance. It does not tell a server that
    is dead from one that is not asked, nor either from logs that are not shipped.

    rows
        Rows in the window.
    explained
        Why the silence is right, in words; it has no severity then.
    """
    if silence is None or not silence.steady:
        few = "it has not served long enough to know when it should"
        return Finding(window, subject, "silence", status=Status.NOT_ENOUGH_DATA, n=rows, message=few)
    silent = silence.severity >= 1
    told = f"silent for {_length(silence.minutes)}, in which {silence.expected:,.0f} rows were expected"
    if silent and silence.before >= OTHERS_BEFORE and not explained:
        explained = f"as {silence.before} times before"
    return Finding(
        window,
        subject,
        "silence",
        value=silence.expected,
        n=rows,
        component="silent" if silent else "",
        severity=0.0 if explained else silence.severity,
        effects={"silent_minutes": float(silence.minutes), "usual_rows": silence.usual},
        message=f"{told}: {explained}" if explained and silent else told if silent else "",
    )


def _share(rows: Floats, of: Floats, where: slice) -> float:
    return float(rows[where].sum() / max(of[where].sum(), 1.0))


def _silence(subject: Record, expected: Floats, hours: NDArray[np.intp], gap: float, minutes: int) -> Silence:
    """``expected``: the rows that each hour of the past should have had."""
    gaps = _gaps(subject, expected)[hours[0] : hours[-1] + 1]  # without the silence that is looked at
    usual = float(gaps.sum() / gammaincinv(len(gaps), 0.01))  # 99 % bound, were they independent and exponential
    long = gaps >= usual * -math.log(CHANCE)
    before = int((long[1:] & ~long[:-1]).sum())
    return Silence(gap, usual, len(hours), before, minutes)


def _gaps(subject: Record, expected: Floats) -> Floats:
    """The silence at the end of each hour, in rows: at least one, and at least what comes in a minute."""
    seen = subject.rows > 0
    latest = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), 0))
    unseen = np.cumsum(np.where(seen, 0.0, expected))
    at_end = np.where(seen, subject.rows * subject.rest + 1, 0.0)
    gaps: Floats = at_end[latest] + unseen - unseen[latest]
    return gaps


def _season(rows: Floats, first: int) -> Floats:
    """What is expected in each hour, and in two more; NaN where it is not known."""
    expected = np.full(len(rows) + 2, np.nan)
    low = np.minimum(np.minimum(rows[:-2], rows[1:-1]), rows[2:])  # of an hour and its neighbours, from hour 1 on
    for lag in (2 * WEEK, WEEK):
        hours = np.arange(first + 1 + lag, len(expected))
        if len(hours):
            expected[hours] = np.fmin(expected[hours], low[hours - lag - 1])
    return expected


def _length(minutes: int) -> str:
    """A span of time in words.

    >>> _length(45), _length(190), _length(5000)
    ('45 minutes', '3 hours', '3 days')
    """
    for name, size in (("days", 60 * DAY), ("hours", 60)):
        if minutes >= 2 * size:
            return f"{minutes // size} {name}"
    return f"{minutes} minutes"
