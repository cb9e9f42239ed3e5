"""The auditor: holds what is kept against what was counted when it came in, and makes good what does not agree.

Counts are compared, not contents: a cell that holds a wrong number in a profile whose sum is right is not seen.

Batches come in while it looks. What does not agree is looked at twice, and in between it is asked which batches are
finished: all of a batch is there before its record is. Nothing is repaired unless it still does not agree then, and
what is removed is taken in again, or is there in another batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import polars as pl
import structlog

from monitor.batches import Batch, Limits
from monitor.folding import HOUR, mark, span
from monitor.ingest import REPLAYED, UNEXPECTED, Ingest, Origin
from monitor.overlaps import Held, Overlap, Span, overlaps
from monitor.reference import References
from monitor.registry import Model, Registry
from monitor.retention import removed_until
from monitor.sources import Message, Place, SourceError
from monitor.store import Store
from monitor.store.literals import literal, render
from monitor.windows import floor

GRACE = timedelta(minutes=10)
"""A batch of a request or a file that is not finished so long after it came in was left by whoever took it in."""
KAFKA = "kafka/"
EPOCH = datetime.fromtimestamp(0, UTC)
OVERLAP, GAP, SUM, PROFILES = "messages taken in twice", "messages taken in", "sum of an hour", "profiles"
LAST = (OVERLAP, SUM)
"""In this order they are made good: what is removed must be elsewhere, and only then can a sum be right."""
KEYS = "undeclared keys"
REPLAY = "dead letters taken in twice"
NEVER_FINISHED = " of a batch never finished"
ONLY_SUM = "not repaired: its batches are not kept any more, only their sum"
OTHERS_FIRST = "not repaired: other batches of its log do not agree"
UNREADABLE = "not repaired: its log cannot be read here"
OTHERS_REPAIR = "not repaired: another process repairs at this moment"
Read = Callable[[str, int, int], Iterator[Message]]
"""The messages of a range of offsets of a batch's source, in order. Raises SourceError."""
OpenLogs = Callable[[], AbstractContextManager[Read]]
log = structlog.get_logger()


class AuditError(Exception):
    """The auditor cannot work now. The message says why."""


class State(Enum):
    """How far the taking in of a batch is."""

    FINISHED = "finished"
    BUSY = "busy"
    LEFT = "left"


@dataclass(frozen=True)
class Disagreement:
    """Something that is not what it should be.

    what
        Names the two sides, such as "profiles and events counted".
    expected, found
        How many there should be and how many there are.
    lacking
        From where to where in a log offsets would have to be taken in to make it good, where any would.
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

    @property
    def place(self) -> tuple[object, ...]:
        """What disagrees, whatever the numbers are."""
        return self.what, self.environment, self.model, self.hour, self.source, self.batch, self.lacking

    @property
    def is_surplus(self) -> bool:
        """Whether there is more than there should be."""
        return self.found > self.expected

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**self.__dict__, "hour": self.hour.isoformat() if self.hour else None}


@dataclass(frozen=True)
class _Look:
    """What is looked at: batches that arrived in a span of whole hours, and hours of events in it.

    read
        Reads logs again, where that can be done here.
    alone
        Says whether nobody else repairs or replays, and holds on to that; None where nothing is to be repaired.
    """

    start: datetime
    end: datetime
    now: datetime
    read: Read | None = field(repr=False)
    alone: Callable[[], bool] | None = field(repr=False)

    @property
    def is_alone(self) -> bool:
        """Whether it may be repaired now."""
        return self.alone is not None and self.alone()

    def since(self, at: datetime) -> _Look:
        """The same without what is older, as that was removed."""
        return replace(self, start=max(self.start, at))

    @property
    def within(self) -> dict[str, datetime]:
        return {"start": self.start, "end": self.end}


class Auditor:
    """Looks at spans of time. Two of them may look at the same, but only one at a time may repair."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        references: References,
        ingest: Ingest,
        open_logs: OpenLogs | None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._store = store
        self._registry = registry
        self._references = references
        self._ingest = ingest
        self._open_logs = open_logs
        self._limits = limits

    def audit(
        self, start: datetime, end: datetime, now: datetime, *, repair: bool, alone: Callable[[], bool] = lambda: True
    ) -> list[Disagreement]:
        """Everything that does not agree: of the hours that a span touches, and of the batches that arrived in them.

        alone
            Asked before each repair: whether nobody else repairs.
        """
        with self._open_logs() if self._open_logs else contextlib.nullcontext() as read:
            until = floor(end + HOUR - timedelta(microseconds=1), HOUR)
            look = _Look(floor(start, HOUR), until, now, read, alone if repair else None)
            found = list(self._found(look))
            if repair:
                return list(self._repaired(found, look))
            return [each for each in found if each.expected != each.found]

    def _found(self, look: _Look) -> Iterator[Disagreement]:
        of_batches = look.since(removed_until(self._store, "", "").get("batches", EPOCH))
        yield from self._overlaps(of_batches)
        yield from self._gaps(of_batches)
        yield from self._batches(of_batches)
        yield from self._replays()
        for model in self._registry.models():
            hours_since = removed_until(self._store, **_named(model)).get("hours", EPOCH)
            yield from self._of_model(model, look.since(hours_since))

    # What does not agree

    def _overlaps(self, look: _Look) -> Iterator[Disagreement]:
        """Batches that hold messages of others: a group that lost its commits has read its topics again."""
        for source, each, _ in self._overlapping(look):
            lacking = (each.lacking[0][0], each.lacking[-1][1]) if each.lacking else None
            yield Disagreement(OVERLAP, 0, each.twice, source=source, batch=each.held.batch, lacking=lacking)

    def _overlapping(self, look: _Look) -> Iterator[tuple[str, Overlap, Sequence[Held]]]:
        """With the source, and what is there around it."""
        for source, first, last in self._store.query("offset_overlaps", **look.within).iter_rows():
            held = self._held(source, first, last)
            yield from ((source, each, held) for each in overlaps(held))

    def _held(self, source: str, first: int, last: int) -> list[Held]:
        """The batches of a log that have offsets in a span."""
        return [Held(*row) for row in self._store.query("held_batches", source=source, first=first, last=last).rows()]

    def _gaps(self, look: _Look) -> Iterator[Disagreement]:
        """Offsets that no batch holds. Where the log has no message there, nothing is expected."""
        for source, first, last in self._store.query("offset_gaps", **look.within).iter_rows():
            missing = last - first + 1
            if look.read is not None:
                # Where they are gone from the log, too, or it cannot be asked, that is for people to see.
                with contextlib.suppress(SourceError):
                    missing = sum(1 for _ in look.read(source, first, last))
            yield Disagreement(GAP, missing, 0, source=source, batch=str(first), lacking=(first, last))

    def _batches(self, look: _Look) -> Iterator[Disagreement]:
        """What is odd at both looks was finished before the second."""
        rows_since = max((self._rows_since(model) for model in self._registry.models()), default=EPOCH).timestamp()
        asked: dict[str, Any] = {**look.within, "letters_since": self._letters_since()}
        first, second = (
            {(row["source"], row["batch"]): row for row in rows.iter_rows(named=True)}
            for rows in _twice(lambda: self._store.query("audit_batches", **asked))
        )
        for source, batch in first.keys() & second.keys():
            row = second[source, batch]
            sides = (
                ("dead letters", row["rejected"], row["dead_letters"]),
                ("predictions counted by hour", row["predictions"], row["events"]),
                *([("labels", row["labels"], row["label_rows"])] if row["labels_from"] >= rows_since else ()),
            )
            for what, expected, held in sides:
                if expected != held:
                    yield Disagreement(what, expected, held, source=source, batch=batch)

    def _replays(self) -> Iterator[Disagreement]:
        """What was replayed of letters that are none any more: their batch was taken in again by other rules."""
        for source, batch, events, letters in self._store.query(
            "audit_replays", letters_since=self._letters_since()
        ).iter_rows():
            yield Disagreement(REPLAY, letters, events, source=source, batch=batch)

    def _of_model(self, model: Model, look: _Look) -> Iterator[Disagreement]:
        """Sums are added up at both ends: an hour that is being written to is seen to be so in between."""
        before = self._sums(model, look)
        unsettled: set[datetime] = set()
        yield from self._hours(model, look, unsettled)
        after = self._sums(model, look) if before else {}
        for hour, (counted, held) in after.items():
            if before.get(hour) == (counted, held) and hour not in unsettled:
                yield Disagreement(SUM, counted, held, model.environment, model.name, hour)

    def _hours(self, model: Model, look: _Look, unsettled: set[datetime]) -> Iterator[Disagreement]:
        """``unsettled`` gets the hours with batches that are not finished."""
        asked: dict[str, Any] = {**_named(model), **look.within}
        first = self._store.query("audit_hours", **asked)
        if first.is_empty():
            return
        states = {
            (hour, source, batch): self._state(model, hour, source, batch, look)
            for hour, source, batch in first.select(_PLACE).iter_rows()
        }
        for row in self._store.query("audit_hours", **asked).iter_rows(named=True):
            state = states.get((row["hour"], row["source"], row["batch"]), State.BUSY)
            if state is not State.FINISHED:
                unsettled.add(row["hour"])
            if state is State.BUSY:
                continue
            sides = (
                (PROFILES, row["events"], row["profiled_events"]),
                ("prediction rows", row["predictions"], row["prediction_rows"]),
                ("feature rows", row["features"], row["feature_rows"]),
                (KEYS, row["undeclared_keys"], row["named_keys"]),
            )
            rows_went = row["hour"] < self._rows_since(model)
            place: dict[str, Any] = {**_named(model), **{name: row[name] for name in _PLACE}}
            for what, expected, held in sides[:1] if rows_went else sides:
                if expected > held or (expected < held and what != KEYS):
                    told = what if state is State.FINISHED else what + NEVER_FINISHED
                    yield Disagreement(told, expected, held, **place)

    def _letters_since(self) -> datetime:
        return removed_until(self._store, "", "").get("dead_letters", EPOCH)

    def _rows_since(self, model: Model) -> datetime:
        """Up to when rows were removed, as they had been kept for long enough."""
        return removed_until(self._store, **_named(model)).get("rows", EPOCH)

    def _state(self, model: Model, hour: datetime, source: str, batch: str, look: _Look) -> State:
        """A batch of Kafka that is not finished is its reader's, until a later one is."""
        if self._record(source, batch) is not None:
            return State.FINISHED
        if source.startswith(KAFKA):
            newest = self._store.query("newest_offset", source=source)["first"][0]
            return State.LEFT if int(batch) < newest else State.BUSY
        if source.startswith(REPLAYED):  # its events arrived long ago; nobody replays while somebody repairs
            return State.BUSY if look.alone is None else State.LEFT
        asked: dict[str, Any] = {**_named(model), "hour": hour, "source": source, "batch": batch}
        arrived: datetime = self._store.query("batch_arrival", **asked)["received"][0]
        return State.LEFT if EPOCH < arrived <= look.now - GRACE else State.BUSY

    def _sums(self, model: Model, look: _Look) -> dict[datetime, tuple[int, int]]:
        """Hours whose sum is not that of the events counted, be it by the sum's fault or a batch's: both numbers."""
        asked: dict[str, Any] = {**_named(model), **look.within}
        hours = span(self._store, **asked)
        counted: dict[datetime, int] = dict(self._store.query("counted_events", **asked).iter_rows())
        sums = self._store.query("audit_sums", **asked, generations=hours.generations)
        generations = dict(zip(hours.hours, hours.generations, strict=True))
        held = {hour: events for hour, generation, events in sums.iter_rows() if generations.get(hour) == generation}
        both = {hour: (counted.get(hour, 0), held.get(hour, 0)) for hour in hours.hours}
        odd = {hour: numbers for hour, numbers in both.items() if numbers[0] != numbers[1]}
        hold_still = set(span(self._store, **asked).generations) if odd else set()
        return {hour: numbers for hour, numbers in odd.items() if generations[hour] in hold_still}

    def _record(self, source: str, batch: str) -> tuple[int, int] | None:
        """The offsets of a batch that was finished; (-1, -1) where it came from no log."""
        rows = self._store.query("batch_record", source=source, batch=batch).select("first", "last").rows()
        return rows[0] if rows else None

    def _offsets(self, source: str, batch: str) -> tuple[int, int] | None:
        """The offsets that a finished batch should have."""
        record = self._record(source, batch)
        if record is None or not source.startswith(KAFKA):
            return record
        (held,) = [each for each in self._held(source, *record) if each.batch == batch]
        return held.first, held.until

    # Making good

    def _repaired(self, found: Sequence[Disagreement], look: _Look) -> Iterator[Disagreement]:
        """What is there twice goes only where all the rest of its log is known to be there."""
        self._ingest.refresh()
        surplus = {(each.source, each.batch) for each in found if each.is_surplus}
        left = {(each.source, each.batch) for each in found if each.what.endswith(NEVER_FINISHED)}
        done: dict[tuple[str, str], str] = {}  # a batch that is taken in again is whole
        broken: set[str] = set()
        for each in sorted(found, key=lambda each: LAST.index(each.what) if each.what in LAST else -1):
            key = (each.source, each.batch)
            if each.what == OVERLAP and each.source in broken:
                outcome = OTHERS_FIRST
            elif key in done and each.what not in (GAP, OVERLAP):
                outcome = done[key]
            else:
                outcome = self._attempt(each, look, surplus, left)
            settled = (
                each.what == OVERLAP and outcome == ONLY_SUM
            )  # for ever, and no reason to leave others as they are
            if outcome.startswith("not repaired") and not settled:
                broken.add(each.source)
            elif outcome.startswith("taken in again"):
                done[key] = outcome
            if outcome and each.expected != each.found:
                yield replace(each, repair=outcome)

    def _attempt(
        self,
        told: Disagreement,
        look: _Look,
        surplus: Collection[tuple[str, str]],
        left: Collection[tuple[str, str]],
    ) -> str:
        """Repair one disagreement; whatever fails, the next ones are tried. Nothing where it agrees by now."""
        try:
            if not look.is_alone:
                return OTHERS_REPAIR
            if told.what.endswith(NEVER_FINISHED):
                return _why_left(told)
            if told.what == OVERLAP:
                return self._apart(told, look)
            if not self._still(told, look):
                return ""
            if told.what == SUM:
                if told.hour is not None and self._is_sealed(told.environment, told.model, told.hour):
                    return ONLY_SUM
                mark(self._store, pl.DataFrame({**_lists(told), "minute": [told.hour]}))
                return "the hour is added up anew when it is read next"
            if told.what == REPLAY:
                self._ingest.drop_replay(Origin(told.source.removeprefix(REPLAYED), told.batch, EPOCH))
                return "what was replayed was removed; what is still refused are dead letters again"
            if told.what == GAP and told.lacking is not None:
                return self._from_offsets(told, told.lacking, look, left)
            return self._again(told, look, anew=(told.source, told.batch) in surplus)
        except UNEXPECTED as error:
            log.exception("a disagreement was not repaired", what=told.what, source=told.source, batch=told.batch)
            return f"not repaired: {type(error).__name__}: {error}"

    def _still(self, told: Disagreement, look: _Look) -> bool:
        """Whether it disagrees as it did. Much may have come in while others were repaired."""
        if told.what == SUM and told.hour is not None:
            hour = replace(look, start=told.hour, end=told.hour + HOUR)
            return told.hour in self._sums(self._registry.get(told.environment, told.model), hour)
        if told.what == REPLAY:
            again = self._replays()
        elif told.what == GAP:
            again = self._gaps(replace(look, read=None))
        elif told.hour is None:
            again = self._batches(look)
        else:
            hour = replace(look, start=told.hour, end=told.hour + HOUR)
            again = self._hours(self._registry.get(told.environment, told.model), hour, set())
        return told.place in {each.place for each in again}

    def _from_offsets(self, told: Disagreement, lacking: Span, look: _Look, left: Collection[tuple[str, str]]) -> str:
        """Take offsets in that lack, in batches as the intake makes them."""
        first, last = lacking
        if not told.expected:
            # A record without events, so that nobody looks there again.
            self._ingest.retake([], Origin(told.source, str(first), look.now, None, last))
            return "the log has nothing there"
        if look.read is None:
            return UNREADABLE
        taken: set[str] = set()
        for batch in batches_of(look.read(told.source, first, last), first, last, self._limits):
            if not look.is_alone:
                return OTHERS_REPAIR
            self._ingest.retake(batch.lines, _origin(told.source, batch, look.now))
            taken.add(str(batch.first))
        # What was begun there once and never ended; all of it is there by now.
        begun = {batch for source, batch in left if source == told.source and first <= int(batch) <= last}
        counted = self._store.query("unfinished_batches", source=told.source, first=first, last=last)
        for each in begun.union(counted["batch"]) - taken:
            self._ingest.forget(Origin(told.source, each, EPOCH))
        return f"taken in again: offsets {first} to {last}"

    def _apart(self, told: Disagreement, look: _Look) -> str:
        """Take in again what only this batch has of what it holds, and then remove it; or make it what its sum has."""
        here = (told.source, told.batch)
        found = [(each, held) for source, each, held in self._overlapping(look) if (source, each.held.batch) == here]
        if not found:
            return ""
        overlap, held = found[0]
        if overlap.is_settled:
            return ONLY_SUM
        again = list(reversed(overlap.lacking))
        if overlap.held.sealed_last is not None:
            again.append((overlap.held.first, overlap.held.sealed_last))
        if again and look.read is None:
            return UNREADABLE
        names = {each.batch for each in held} - {told.batch}
        is_replaced = False
        # The last ones first: what is taken in under the batch's own name replaces it.
        for batch in self._read_anew(told.source, again, look):
            if str(batch.first) in names:
                return OTHERS_FIRST
            if not look.is_alone:
                return OTHERS_REPAIR
            is_replaced = batch.first == overlap.held.first
            self._ingest.retake(batch.lines, _origin(told.source, batch, look.now), anew=is_replaced)
        if not is_replaced:
            self._ingest.drop(Origin(told.source, told.batch, EPOCH))
        said = [f"taken in again: offsets {first} to {last}" for first, last in sorted(again)]
        return "; ".join([*said, "what is there twice was removed"])

    def _read_anew(self, source: str, spans: Iterable[Span], look: _Look) -> Iterator[Batch]:
        """Spans of a log as batches, the last of each first."""
        if look.read is not None:
            for first, last in spans:
                yield from reversed(list(batches_of(look.read(source, first, last), first, last, self._limits)))

    def _again(self, told: Disagreement, look: _Look, *, anew: bool) -> str:
        """Take a batch in again from its log, which replaces what is there; or make its profiles from its rows."""
        why = "it came from no log"
        offsets = self._offsets(told.source, told.batch)
        if told.source.startswith(KAFKA) and offsets is not None:
            try:
                if look.read is None:
                    raise SourceError("no Kafka is configured here")
                messages = list(look.read(told.source, *offsets))
            except SourceError as error:
                why = str(error)
            else:
                batch = Batch(Place("", 0), *offsets, messages)
                self._ingest.retake(batch.lines, _origin(told.source, batch, look.now), anew=anew)
                return f"taken in again: offsets {offsets[0]} to {offsets[1]}"
        if told.what == PROFILES and told.hour is not None:
            return self._from_rows(told, told.hour, why)
        return f"not repaired: {why}, and {told.what} cannot be made from anything else"

    def _is_sealed(self, environment: str, model: str, hour: datetime) -> bool:
        place = {"environment": environment, "model": model}
        return not self._store.query("sealed_hours", **place, start=hour, end=hour + HOUR).is_empty()

    def _from_rows(self, told: Disagreement, hour: datetime, why: str) -> str:
        """Make a batch's profiles of an hour from its rows, where there is one for each event that was counted."""
        model = self._registry.get(told.environment, told.model)
        place = {**_named(model), "source": told.source, "batch": told.batch}
        counted = self._store.query("batch_hour", **place, hour=hour)
        if counted.is_empty() or not counted["events"][0]:
            return f"not repaired: {why}, and nobody has counted its events"
        events, kept = counted.row(0)
        rows = self._store.query("batch_rows", **place, start=hour, end=hour + HOUR).height
        if not events == kept == rows:
            return f"not repaired: {why}, and of its {events} events {rows} rows are kept"
        made = (model, told.source, told.batch, hour, hour + HOUR, events)
        if not self._references.reprofile(*made):
            return f"not repaired: {why}, and its rows went while they were looked at"
        # What is too much was not replaced; now that it is known that it can be made, all of it may go.
        where = " AND ".join(f"{name} = {literal(value)}" for name, value in place.items())
        within = render(
            "minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}",
            {"start": hour, "end": hour + HOUR},
        )
        self._store.execute(f"DELETE FROM profile_batches WHERE {where} AND {within}")  # noqa: S608 - quoted
        self._references.reprofile(*made)
        return "profiles made again from the rows"


_PLACE = ("hour", "source", "batch")


def batches_of(messages: Iterator[Message], first: int, last: int, limits: Limits) -> Iterator[Batch]:
    """The messages of a range of offsets as batches that cover it and are no larger than the intake's.

    >>> def told(most):
    ...     messages = (Message(n, 0, [b"x"], 1) for n in (3, 4, 6, 7))
    ...     return [(b.first, b.last, len(b.messages)) for b in batches_of(messages, 2, 9, Limits(rows=most))]
    >>> told(2), told(9)
    ([(2, 4, 2), (5, 9, 2)], [(2, 9, 4)])
    """
    place = Place("", 0)
    held: list[Message] = []
    rows = size = 0
    for message in messages:
        rows += len(message.lines)
        size += message.size
        if held and (rows > limits.rows or size > limits.size):
            yield Batch(place, first, held[-1].offset, held)
            first = held[-1].offset + 1
            held, rows, size = [], len(message.lines), message.size
        held.append(message)
    yield Batch(place, first, last, held)


def _twice(ask: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same question twice, unless there is nothing at first."""
    first = ask()
    return first, first if first.is_empty() else ask()


def _named(model: Model) -> dict[str, str]:
    return {"environment": model.environment, "model": model.name}


def _lists(told: Disagreement) -> dict[str, list[str]]:
    return {"environment": [told.environment], "model": [told.model]}


def _origin(source: str, batch: Batch, now: datetime) -> Origin:
    arrivals = batch.arrivals
    arrived = datetime.fromtimestamp(max(arrivals, default=0.0), UTC)
    return Origin(source, str(batch.first), arrived, arrivals, batch.last, now)


def _why_left(told: Disagreement) -> str:
    if told.source.startswith(KAFKA):
        return "not repaired: its offsets are those of other batches by now"
    if told.source.startswith(REPLAYED):
        return "not repaired: replay the dead letters again, which finishes it"
    return "not repaired: it was not taken in to its end; it will be when its sender sends it again"
