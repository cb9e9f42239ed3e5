"""Hours of a day and of a week that are alike: what a window is to be held against is the past of its own hours.

A slot is an hour of the day, on weekdays or on weekends and holidays. A season of another length, such as a year or a
month, and differences between the weekdays are not modelled; the calibration takes them for chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLOTS = 48
SPAN = timedelta(days=28)
"""So much of the past is pooled: 20 weekdays and 8 days of weekends."""
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Calendar:
    """When it is what time where a model is used.

    timezone
        As in the IANA database. Clocks that change are followed: a slot is an hour by the clock on the wall.
    holidays
        Days there that are like a weekend.
    """

    timezone: str = "UTC"
    holidays: frozenset[date] = frozenset()

    def slots(self, hours: Iterable[datetime]) -> NDArray[np.int64]:
        """The slot of each hour, given by its start: 0 to 23 on weekdays, 24 to 47 on weekends and holidays.

        >>> from datetime import UTC
        >>> Calendar("Europe/Berlin").slots([datetime(2026, 1, 2, 8, tzinfo=UTC), datetime(2026, 7, 4, 8, tzinfo=UTC)])
        array([ 9, 34])
        """
        zone = ZoneInfo(self.timezone)
        there = (hour.astimezone(zone) for hour in hours)
        return np.array(
            [t.hour + 24 * (t.weekday() >= SATURDAY or t.date() in self.holidays) for t in there], dtype=np.int64
        )


@dataclass(frozen=True)
class BySlot:
    """Counts of some hours, added up for each slot.

    counts
        A row for each slot, a column for each cell.
    hours
        How many hours with rows are in each slot.
    """

    counts: Floats
    hours: Floats

    @staticmethod
    def of(hourly: NDArray[np.int64] | Floats, slots: Sequence[int] | NDArray[np.int64]) -> BySlot:
        """The sum of hourly count vectors, given as rows, with the slot of each."""
        counts, hours = np.zeros((SLOTS, hourly.shape[1])), np.zeros(SLOTS)
        np.add.at(counts, slots, hourly)
        np.add.at(hours, slots, hourly.any(axis=1))
        return BySlot(counts, hours)

    def part(self, span: slice) -> BySlot:
        """Only some cells, such as those of one feature."""
        return BySlot(self.counts[:, span], self.hours)


@dataclass(frozen=True)
class Expectation:
    """A window and what its hours usually hold, as two count vectors to compare.

    baseline
        Shares that the past has in the window's mix of hours, times as many rows as make them as sure as they are.
    current
        The window's rows in hours that have a past; all, once the past is a week.
    exposure
        How much a difference between days, rather than between rows, shows in a squared score: ``nm / (n + m)``,
        and more where the past is few days, as these differ by themselves too.
    covered
        Share of the window's rows that are in ``current``.
    """

    baseline: Floats
    current: Floats
    exposure: float
    covered: float


def expectation(window: BySlot, past: BySlot) -> Expectation:
    """Holds a window of one feature against its own hours in the past.

    Each slot of the past weighs as much as it has of the window's rows, so a change of the traffic over the day is no
    change of the feature. Without a row in common all is zero.

    >>> window, past = np.zeros((SLOTS, 2)), np.zeros((SLOTS, 2))
    >>> window[[3, 4]], past[[3, 4]] = [[5, 5], [0, 10]], [[100, 100], [0, 200]]
    >>> found = expectation(BySlot(window, np.ones(SLOTS)), BySlot(past, np.full(SLOTS, 20.0)))
    >>> found.baseline, found.current
    (array([100., 300.]), array([ 5., 15.]))
    """
    n_slot, m_slot = window.counts.sum(axis=1), past.counts.sum(axis=1)
    used = (n_slot > 0) & (m_slot > 0)
    current = window.counts[used].sum(axis=0)
    n = float(current.sum())
    if n == 0:
        return Expectation(np.zeros_like(current), current, 0.0, 0.0)
    weights = n_slot[used] / n
    m = 1 / float((weights**2 / m_slot[used]).sum())
    shares = (weights / m_slot[used]) @ past.counts[used]
    days = float((weights / past.hours[used]).sum())
    return Expectation(shares * m, current, n * m / (n + m) * (1 + days), n / float(n_slot.sum()))
