"""The auditor: holds what is kept against what was counted when it came in, and makes good what does not agree.

Counts are compared, not contents: a cell that holds a wrong number in a profile whose sum is right is not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from monitor.folding import HOUR, mark, span
from monitor.forgetting import remove_forgotten
from monitor.ingest import Ingest, Origin
from monitor.reference import References
from monitor.registry import Registry
from monitor.sources import SourceError
from monitor.store import Store
from monitor.store.literals import literal, render

GRACE = timedelta(minutes=10)
"""A batch that is not finished so long after it came in was left by whoever took it in."""
KAFKA = "kafka/"
EPOCH = datetime.fromtimestamp(0, UTC)
OVERLAP, GAP, SUM, PROFILES = "messages taken in twice", "messages taken in", "sum of an hour", "profiles"
KEYS = "undeclared keys"
Read = Callable[[str, int, int], tuple[Sequence[bytes], list[float]]]
"""The lines of a range of offsets of a batch's source, and when each had arrived. Raises SourceError."""


class AuditError(Exception):
    """The auditor cannot work now. The message says why."""


@dataclass(frozen=True)
class Disagreement:
    """Something that is not what it should be.

    what
        Names the two sides, such as "profiles and events counted".
    expected, found
        How many there should be and how many there are.
    lacking
        The offsets of a log that would have to be taken in to make it good, where there are any.
    repair
        What was done about it; empty where nothing was asked for.
    """

    what: str
    expected: int
    found: int
    environment: str = ""
    model: str = ""
    hour: datetime | None = None
    source: str = ""
    batch: str = ""
    lacking: tuple[int, int] | None = None
    repair: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**self.__dict__, "hour": self.hour.isoformat() if self.hour else None}


class Auditor:
    """Looks at spans of time. Two of them may look at the same, but only one at a time should repair."""

    def __init__(
        self, store: Store, registry: Registry, references: References, ingest: Ingest, read: Read | None
    ) -> None:
        self._store = store
        self._registry = registry
        self._references = references
        self._ingest = ingest
        self._read = read

    def audit(self, start: datetime, end: datetime, now: datetime, *, repair: bool) -> list[Disagreement]:
        """Everything that does not agree: of the hours in a span, and of the batches that arrived in it."""
        found = [*self._overlaps(start, end), *self._gaps(start, end), *self._batches(start, end)]
        for model in self._registry.models():
            asked = {"environment": model.environment, "model": model.name}
            busy: set[datetime] = set()
            found += [*self._hours(asked, start, end, now, busy), *self._sums(asked, start, end, busy)]
        return list(self._repaired(found)) if repair else found

    # What does not agree

    def _overlaps(self, start: datetime, end: datetime) -> Iterator[Disagreement]:
        """Batches that hold messages of others: a group that lost its commits has read its topics again."""
        overlaps = self._store.query("offset_overlaps", start=start, end=end)
        for source, batch, first, last, taken_until in overlaps.iter_rows():
            twice = min(last, taken_until) - first + 1
            rest = (taken_until + 1, last) if last > taken_until else None
            yield Disagreement(OVERLAP, 0, twice, source=source, batch=batch, lacking=rest)

    def _gaps(self, start: datetime, end: datetime) -> Iterator[Disagreement]:
        """Offsets that no batch holds. Where the log can be read, those that never had a message are left out."""
        gaps = self._store.query("offset_gaps", start=start, end=end)
        for source, first, last in gaps.iter_rows():
            missing = last - first + 1
            if self._read is not None:
                # Where they are gone from the log, too, or it cannot be asked, that is for people to see.
                with contextlib.suppress(SourceError):
                    missing = len(self._read(source, first, last)[0])
            if missing:
                yield Disagreement(GAP, missing, 0, source=source, batch=str(first), lacking=(first, last))

    def _batches(self, start: datetime, end: datetime) -> Iterator[Disagreement]:
        for row in self._store.query("audit_batches", start=start, end=end).iter_rows(named=True):
            place = {"source": row["source"], "batch": row["batch"]}
            if row["rejected"] != row["dead_letters"]:
                yield Disagreement("dead letters", row["rejected"], row["dead_letters"], **place)
            if row["predictions"] != row["events"]:
                yield Disagreement("predictions counted by hour", row["predictions"], row["events"], **place)

    def _hours(
        self, asked: Mapping[str, str], start: datetime, end: datetime, now: datetime, busy: set[datetime]
    ) -> Iterator[Disagreement]:
        """``busy`` gets the hours to which something is being written."""
        for row in self._store.query("audit_hours", **asked, start=start, end=end).iter_rows(named=True):
            place: dict[str, Any] = {**asked, "hour": row["hour"], "source": row["source"], "batch": row["batch"]}
            finished = self._offsets(row["source"], row["batch"]) is not None
            if not finished and self._arrived(row["source"], row["batch"]) > now - GRACE:
                busy.add(row["hour"])
                continue
            sides = (
                (PROFILES, row["events"], row["profiled_events"]),
                ("prediction rows", row["predictions"], row["prediction_rows"]),
                ("feature rows", row["features"], row["feature_rows"]),
                (KEYS, row["undeclared_keys"], row["named_keys"]),
            )
            for what, expected, held in sides:
                if expected > held or (expected < held and what != KEYS):
                    yield Disagreement(
                        what if finished else f"{what} of a batch never finished", expected, held, **place
                    )

    def _sums(
        self, asked: Mapping[str, str], start: datetime, end: datetime, busy: set[datetime]
    ) -> Iterator[Disagreement]:
        """Hours whose sum is not that of the events counted, be it by the sum's fault or a batch's."""
        hours = span(self._store, **asked, start=start, end=end)
        counted = dict(self._store.query("counted_events", **asked, start=start, end=end).iter_rows())
        generations = dict(zip(hours.hours, hours.generations, strict=True))
        sums = self._store.query("audit_sums", **asked, start=start, end=end, generations=hours.generations)
        held = {hour: events for hour, generation, events in sums.iter_rows() if generations.get(hour) == generation}
        odd = [hour for hour in hours.hours if held.get(hour, 0) != counted.get(hour, 0) and hour not in busy]
        hold_still = set(span(self._store, **asked, start=start, end=end).generations) if odd else set()
        for hour in odd:
            if generations[hour] in hold_still:
                place: dict[str, Any] = {**asked, "hour": hour}
                yield Disagreement(SUM, counted.get(hour, 0), held.get(hour, 0), **place)

    def _offsets(self, source: str, batch: str) -> tuple[int, int] | None:
        """The offsets of a batch that was finished; (-1, -1) where it came from no log."""
        rows = self._store.query("batch_offsets", source=source, batch=batch).rows()
        return rows[0] if rows else None

    def _arrived(self, source: str, batch: str) -> datetime:
        latest: datetime = self._store.query("batch_arrival", source=source, batch=batch)["received"][0]
        return latest

    # Making good

    def _repaired(self, found: Sequence[Disagreement]) -> Iterator[Disagreement]:
        done: dict[tuple[str, str], str] = {}  # a batch that is taken in again is whole
        for each in found:
            key = (each.source, each.batch)
            outcome = done.get(key) or self._repair(each)
            if each.source.startswith(KAFKA):
                done[key] = outcome
            yield replace(each, repair=outcome)

    def _repair(self, found: Disagreement) -> str:
        if found.what == SUM and found.hour is not None:
            hour = {"environment": [found.environment], "model": [found.model], "minute": [found.hour]}
            mark(self._store, pl.DataFrame(hour))
            return "the hour is added up anew when it is read next"
        if found.source.startswith(KAFKA) and self._read is not None:
            try:
                return self._from_log(found, self._read)
            except SourceError as error:
                return f"not repaired: {error}"
        if found.what == PROFILES and found.hour is not None:
            return self._from_rows(found)
        return "not repaired: its rows are not all kept, and it came from no log that can be read here"

    def _from_log(self, found: Disagreement, read: Read) -> str:
        """Take the same offsets in again, which replaces what is there; what is there too much is removed before."""
        offsets = found.lacking if found.what in (GAP, OVERLAP) else self._offsets(found.source, found.batch)
        taken = self._read_again(found.source, *offsets, read) if offsets else None
        if found.found > found.expected:
            self._ingest.forget(Origin(found.source, found.batch, EPOCH))
        if taken is None or offsets is None:
            return "what is there twice was removed"
        lines, origin = taken
        self._ingest.take(lines, origin)
        for model in self._registry.models():
            remove_forgotten(self._store, model.environment, model.name)
        return f"taken in again: offsets {offsets[0]} to {offsets[1]}"

    def _read_again(self, source: str, first: int, last: int, read: Read) -> tuple[Sequence[bytes], Origin]:
        lines, arrivals = read(source, first, last)
        arrived = datetime.fromtimestamp(max(arrivals, default=0.0), UTC)
        return lines, Origin(source, str(first), arrived, arrivals, last)

    def _from_rows(self, found: Disagreement) -> str:
        """Make a batch's profiles of an hour from its rows."""
        model = self._registry.get(found.environment, found.model)
        hour = found.hour or EPOCH
        place = (model, found.source, found.batch, hour, hour + HOUR, found.expected)
        made = self._references.reprofile(*place)
        if made:  # what is too much was not replaced; now that it can be had again, all of it may go
            names = {
                "environment": model.environment,
                "model": model.name,
                "source": found.source,
                "batch": found.batch,
            }
            where = " AND ".join(f"{name} = {literal(value)}" for name, value in names.items())
            within = render("toStartOfHour(minute) = {hour:DateTime64(3, 'UTC')}", {"hour": hour})
            self._store.execute(f"DELETE FROM profile_batches WHERE {where} AND {within}")  # noqa: S608 - quoted
            self._references.reprofile(*place)
        return "profiles made again from the rows" if made else "not repaired: not all of its rows are kept"
