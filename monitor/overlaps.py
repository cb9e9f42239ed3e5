"""Batches of a log that hold what others hold as well: which of them stay, and what has to be taken in again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""The first and the last of some offsets."""


@dataclass(frozen=True, slots=True)
class Held:
    """A batch of a log.

    last
        Its last offset, by its record.
    sealed_last
        Its last offset when a sum that stands for it was sealed; None where none was. Under the name of a batch, which
        is its first offset, another one may have been taken in later.
    """

    batch: str
    first: int
    last: int
    sealed_last: int | None = None

    @property
    def until(self) -> int:
        """Its last offset, as far as it counts."""
        return self.last if self.sealed_last is None else self.sealed_last


@dataclass(frozen=True, slots=True)
class Overlap:
    """A batch that cannot stay as it is.

    twice
        How many of its offsets are too many, or too few where a sum stands for more.
    lacking
        Those that only it has; once they are taken in again, it may go.
    is_settled
        Whether it is in a sum, and so is another one with the same offsets: nothing can be done.
    """

    held: Held
    twice: int
    lacking: Sequence[Span] = ()
    is_settled: bool = False


def overlaps(held: Sequence[Held]) -> list[Overlap]:
    """What has to be done about batches of a log, in the order in which it can be.

    Batches in sealed sums stay, as they cannot be taken out; of the others those that begin first.

    >>> told = overlaps([Held("0", 0, 29), Held("20", 20, 49), Held("40", 40, 59)])
    >>> [(each.held.batch, each.twice, each.lacking) for each in told]
    [('20', 20, [(30, 39)])]
    >>> told = overlaps([Held("0", 0, 29, sealed_last=9), Held("10", 10, 49, sealed_last=49), Held("30", 30, 69)])
    >>> [(each.held.batch, each.twice, each.lacking) for each in told]
    [('0', 20, []), ('30', 20, [(50, 69)])]
    """
    kept: list[Span] = []
    settled, rest = [], []
    ordered = sorted(held, key=lambda each: (each.sealed_last is None, each.first, each.until, each.batch))
    for each in ordered:
        span = each.first, each.until
        lacking = _lacking(kept, *span)
        if lacking == [span]:
            insort(kept, span)
        elif each.sealed_last is None:
            rest.append(each)
        else:
            settled.append(Overlap(each, _size([span]) - _size(lacking), is_settled=True))
            for more in lacking:
                insort(kept, more)
    others = [e for e in ordered if e.last != e.until and e not in [each.held for each in settled]]
    changed = [Overlap(e, abs(e.last - e.until), _lacking(kept, e.until + 1, e.last)) for e in others]
    found = [(each, _lacking(kept, each.first, each.last)) for each in reversed(rest)]
    twice = [Overlap(each, each.last - each.first + 1 - _size(lacking), lacking) for each, lacking in found]
    return [*settled, *changed, *twice]


def _lacking(kept: Sequence[Span], first: int, last: int) -> list[Span]:
    """What is in none of some spans that lie in order and apart."""
    lacking = []
    at = max(0, bisect_left(kept, (first, first)) - 1)
    while first <= last and at < len(kept) and kept[at][0] <= last:
        start, end = kept[at]
        if first < start:
            lacking.append((first, start - 1))
        first = max(first, end + 1)
        at += 1
    return [*lacking, (first, last)] if first <= last else lacking


def _size(spans: Sequence[Span]) -> int:
    return sum(last - first + 1 for first, last in spans)
