"""From a log to the store, exactly once, whatever is killed in between.

Before a batch is taken in, one commit says: all before it is taken in, and the batch from here to there is begun. Who
owns the partition next, after a crash or a rebalance, reads that, goes back to its beginning, forms the same batch
again and takes it in again, which changes nothing where it was taken in already: rows and profiles are keyed by it.
A member that has lost its partitions cannot commit, so it cannot begin a batch.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from monitor.batches import Batch, Buffer, Intent, Limits, read_intent
from monitor.clock import SystemClock
from monitor.dead_letter_watch import TooManyDeadLettersError
from monitor.ingest import Origin
from monitor.metrics import Metrics
from monitor.sources import Mark, Place, Source, SourceError

PROGRESS_SECONDS = 5.0
STALL_SECONDS = 15.0
"""A partition that has messages and gives none for so long: the client has lost its way, and is made anew."""
MOST_BATCHES_HELD = 2
"""When so many batches' bytes are in memory, over all partitions, only the partition whose turn is next is read on."""
NOTHING_YET = datetime.fromtimestamp(0, UTC)
IDLE_POLL_SECONDS = 0.2
BUSY_POLL_SECONDS = 0.02
SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
STALE_SECONDS = 3 * PROGRESS_SECONDS
"""A log that was not looked at for so long may have messages that nobody knows of."""
STOP_SECONDS = 20.0
"""How long a batch that is being taken in is waited for at the end. It is replayed if that is not enough."""
SYSTEM_CLOCK = SystemClock()
log = structlog.get_logger()


class Taker(Protocol):
    """What takes batches in: the service."""

    @property
    def revision(self) -> str:
        """Names the rules by which events are taken in."""

    def take_batch(self, lines: Sequence[bytes], origin: Origin) -> object:
        """Take a batch in; returns when it is durable."""

    def forget_batch(self, origin: Origin) -> None:
        """Remove what is there of a batch."""

    def report_progress(self, progress: Sequence[Progress]) -> None:
        """Hear how far each partition is. Must not take long."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything that had arrived in a partition before ``complete_until`` is taken in."""

    place: Place
    log: str
    complete_until: datetime


@dataclass
class _Work:
    """A batch that is being taken in."""

    batch: Batch
    abandoned: threading.Event = field(default_factory=threading.Event)
    outcome: Future[bool] | None = None

    @property
    def ended(self) -> bool:
        return self.outcome is not None and self.outcome.done()


class Intake:
    """One member of a group: reads its partitions and has their batches taken in, one at a time.

    The thread that calls ``step`` is the only one that uses the source, and goes on polling while a batch is being
    taken in, so that a slow store costs no membership.
    """

    def __init__(
        self,
        source: Source,
        taker: Taker,
        metrics: Metrics,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        executor: Executor | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = SYSTEM_CLOCK.now,
    ) -> None:
        self._source = source
        self._taker = taker
        self._metrics = metrics
        self._limits = limits
        self._executor = executor or ThreadPoolExecutor(1, "intake")
        self._monotonic = monotonic
        self._now = now
        self._looked = -PROGRESS_SECONDS
        self._seen: int | None = None
        self._unsure = True
        self._buffers: dict[Place, Buffer] = {}
        self._marked: dict[Place, int] = {}
        self._read_at: dict[Place, float] = {}
        self._held: dict[Place, deque[tuple[int, float]]] = defaultdict(deque)
        """Of each poll the last offset that is in memory, and when it was."""
        self._work: _Work | None = None
        self._stopped: dict[Place, float] = {}
        """The partitions that are stopped at, and when they are tried again."""

    def step(self) -> None:
        """Poll once, and do what is due. Raises SourceError; go on with another source then."""
        busy = self._work is not None
        polled = self._source.poll(BUSY_POLL_SECONDS if busy else IDLE_POLL_SECONDS)
        if self._unsure or self._source.rebalances != self._seen:
            self._anchor()
            return  # what was polled may be from the wrong place
        now = self._monotonic()
        for place, messages in polled.items():
            self._read_at[place] = now
            again = self._buffers[place].add(messages, now)
            if again is not None:
                log.warning("offsets are lacking, reading again", place=str(place), offset=again)
                self._source.seek(place, again)
            self._hold(place, now)
        self._settle(now)
        if self._work is None:
            self._begin(now)
        self._hold_back()
        if now - self._looked >= PROGRESS_SECONDS:
            self._looked = now
            self._look_ahead()

    def close(self) -> None:
        """Wait a while for the batch that is being taken in, commit what is done, and leave the group."""
        work = self._work
        if work is not None and work.outcome is not None:
            deadline = self._monotonic() + STOP_SECONDS
            while not work.ended and self._monotonic() < deadline:
                time.sleep(0.01)
            work.abandoned.set()
        try:
            if not self._unsure and self._source.rebalances == self._seen:
                self._settle(self._monotonic())
                self._commit_done(self._buffers.values())
        except SourceError as error:
            log.warning("not committed at the end; it will be replayed", reason=str(error))
        finally:
            self._let_go()
            self._executor.shutdown(wait=False)
            self._source.close()

    # Where to go on

    def _anchor(self) -> None:
        """Begin anew with every assigned partition, at the place that the group has committed.

        Also with those that seem to have been ours all the time: they may have been another's in between.
        """
        self._metrics.rebalances.inc(self._source.rebalances - (self._seen or 0))
        self._seen = self._source.rebalances
        self._unsure = False
        if self._work is not None:
            self._work.abandoned.set()
            self._work = None
        self._looked = self._monotonic()
        self._let_go()
        self._buffers.clear()
        self._stopped.clear()
        self._marked.clear()
        self._metrics.lag.clear()
        self._metrics.lag_seconds.clear()
        for place in sorted(self._source.assignment()):
            self._buffers[place] = buffer = self._buffer_at_mark(place)
            self._read_at[place] = self._monotonic()
            self._source.seek(place, buffer.following)
            self._source.resume(place)
            log.info("reading", place=str(place), offset=buffer.position, pending=buffer.pending)

    def _buffer_at_mark(self, place: Place) -> Buffer:
        identity = self._source.identity(place)
        first, following = self._source.bounds(place)
        mark = self._source.mark(place)
        if mark is None:
            return Buffer(place, first)
        intent = read_intent(mark.note)
        if intent is not None and "" not in (intent.log, identity) and intent.log != identity:
            log.warning("the topic was made anew, reading from its beginning", place=str(place))
            return Buffer(place, first)
        if mark.offset > following:
            log.error("the log ends before what was read of it", place=str(place), read=mark.offset, end=following)
            return Buffer(place, following)
        if first > mark.offset:
            lost = first - mark.offset
            self._metrics.lost_offsets.inc(lost)
            log.error("messages were deleted before they were read", place=str(place), offset=mark.offset, lost=lost)
        if intent is None or intent.end is None or not first <= intent.end < following:
            return Buffer(place, max(mark.offset, first))
        amended = first > mark.offset or intent.revision != self._taker.revision
        return Buffer(place, mark.offset, first, intent.end, intent.log, amended)

    def _stop_at(self, place: Place, now: float) -> None:
        """Keep nothing of a partition in memory while it rests, and read the same again then."""
        self._stopped[place] = now + LONGEST_PAUSE_SECONDS
        self._buffers[place] = buffer = self._buffer_at_mark(place)
        self._held.pop(place, None)
        self._metrics.unflushed.release(place)
        self._source.seek(place, buffer.following)

    # What is in memory

    def _hold(self, place: Place, now: float) -> None:
        """Note when what was polled came into memory."""
        messages, held = self._buffers[place].messages, self._held[place]
        if messages and (not held or held[-1][0] < messages[-1].offset):
            held.append((messages[-1].offset, now))
            self._metrics.unflushed.hold(place, held[0][1])

    def _release(self, batch: Batch) -> None:
        """Note that a batch is durable."""
        held = self._held[batch.place]
        while held and held[0][0] <= batch.last:
            held.popleft()
        if held:
            self._metrics.unflushed.hold(batch.place, held[0][1])
        else:
            self._metrics.unflushed.release(batch.place)

    def _let_go(self) -> None:
        """Note that nothing is in memory any more."""
        for place in self._held:
            self._metrics.unflushed.release(place)
        self._held.clear()

    # Batches

    def _begin(self, now: float) -> None:
        """Announce the next batch of a partition, and have it taken in."""
        for place in list(self._buffers):
            if self._stopped.get(place, now) > now:
                continue
            batch = self._buffers[place].next_batch(self._limits, now)
            if batch is None:
                continue
            self._buffers[place] = self._buffers.pop(place)  # it is the others' turn next time
            intent = Intent(self._log_of(batch), batch.last, self._taker.revision)
            if self._commit({place: Mark(batch.first, intent.to_note())}):
                self._marked[place] = batch.first
                self._work = _Work(batch)
                self._work.outcome = self._executor.submit(self._take, self._work, self._origin(batch))
            return
        self._commit_done(self._resting(now))

    def _resting(self, now: float) -> list[Buffer]:
        """The partitions from which nothing has come for a while."""
        return [b for b in self._buffers.values() if not b.messages and now - b.since >= self._limits.seconds]

    def _take(self, work: _Work, origin: Origin) -> bool:
        """Take a batch in, however often that must be tried. False when it is not ours any more, or its log is broken.

        Nothing is ever skipped: what cannot be taken in holds up its partitions, and says so.
        """
        pause = SHORTEST_PAUSE_SECONDS
        batch = work.batch
        if batch.again:
            self._metrics.replays.inc()
        while not work.abandoned.is_set():
            try:
                if batch.amended:
                    self._taker.forget_batch(origin)
                self._taker.take_batch(batch.lines, origin)
            except TooManyDeadLettersError as error:
                log.error("stopped at a partition, the others go on", place=str(batch.place), reason=str(error))
                return False
            except Exception as error:  # noqa: BLE001 - whatever it is, going on would lose the batch
                self._metrics.retries.inc()
                reason = f"{type(error).__name__}: {error}"
                log.error("batch not taken in, trying again", place=str(batch.place), first=batch.first, reason=reason)
                work.abandoned.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                return True
        return False

    def _settle(self, now: float) -> None:
        """See whether the batch that was being taken in is."""
        work = self._work
        if work is None or work.outcome is None or not work.outcome.done():
            return
        self._work = None
        if work.outcome.result():
            self._buffers[work.batch.place].drop(work.batch, now)
            self._release(work.batch)
            self._stopped.pop(work.batch.place, None)
            self._metrics.batches.inc()
        elif not work.abandoned.is_set():
            self._stop_at(work.batch.place, now)

    def _commit_done(self, buffers: Iterable[Buffer]) -> None:
        """Commit that the last batches of partitions are taken in, where no next one says so."""
        done = {
            b.place: Mark(b.position, Intent(self._source.identity(b.place)).to_note())
            for b in buffers
            if self._marked.get(b.place, b.position) < b.position
        }
        if done and self._commit(done):
            self._marked.update({place: mark.offset for place, mark in done.items()})

    def _commit(self, marks: dict[Place, Mark]) -> bool:
        """Commit. When that fails, nothing may be taken in: whoever owns the partitions now knows where they are."""
        try:
            self._source.commit(marks)
        except SourceError as error:
            log.warning("commit refused, looking where we are", reason=str(error))
            self._metrics.source_up.set(0)
            self._unsure = True
            return False
        return True

    def _origin(self, batch: Batch) -> Origin:
        place = batch.place
        source = f"kafka/{place.topic}/{place.partition}/{self._log_of(batch)}"
        arrivals = batch.arrivals
        arrived = datetime.fromtimestamp(max(arrivals, default=0.0), UTC)
        return Origin(source, str(batch.first), arrived, arrivals, batch.last, self._now())

    def _log_of(self, batch: Batch) -> str:
        return self._source.identity(batch.place) if batch.log is None else batch.log

    def _hold_back(self) -> None:
        """Read no more of what piles up, in one partition or in all."""
        much = sum(b.size for b in self._buffers.values()) >= MOST_BATCHES_HELD * self._limits.size
        now = self._monotonic()
        turn = next((place for place in self._buffers if self._stopped.get(place, now) <= now), None)
        for place, buffer in self._buffers.items():
            # However many partitions share the memory, the next batch becomes as large as it may.
            waits = much and not buffer.is_short and (place != turn or buffer.closes(self._limits))
            if waits or self._stopped.get(place, now) > now or buffer.is_full(self._limits):
                self._read_at[place] = now  # it has no chance to give any
                self._source.pause(place)
            else:
                self._source.resume(place)

    def _stalled(self, place: Place) -> bool:
        """Whether nothing was read of a partition for long."""
        return self._monotonic() - self._read_at[place] > STALL_SECONDS

    def _look_ahead(self) -> None:
        """Say how far behind each partition is, and up to which time of arrival it is taken in."""
        at = self._now()  # before the ends are asked for: what comes in between is not seen yet
        try:
            ends = self._source.ends(self._buffers)
            read_to = {place: self._source.position(place) for place in ends}
        except SourceError as error:  # the source connects anew by itself
            log.warning("it is not known how far the log goes", reason=str(error))
            self._metrics.source_up.set(0)
            return
        progress = []
        for place, end in ends.items():
            buffer = self._buffers[place]
            if read_to[place] < end and self._stalled(place):
                raise SourceError(f"{place} gives no messages although it has some")
            until = buffer.look(read_to[place], end, at)
            self._tell_lag(place, max(0, end - buffer.position), until)
            progress.append(Progress(place, self._source.identity(place), until or NOTHING_YET))
        self._taker.report_progress(progress)
        self._metrics.source_up.set(1)

    def _tell_lag(self, place: Place, messages: int, until: datetime | None) -> None:
        """Let the metrics show how far behind a partition is; its age goes on growing while nobody looks."""
        labels = (place.topic, str(place.partition))
        self._metrics.lag.labels(*labels).set(messages)
        if until is not None:  # else nobody knows of when the first message is
            age = functools.partial(lag_seconds, self._now, until, behind=messages > 0)
            self._metrics.lag_seconds.labels(*labels).set_function(age)


def lag_seconds(now: Callable[[], datetime], until: datetime, *, behind: bool) -> float:
    """How old what is not taken in yet may be, where all that arrived before a time is.

    >>> from datetime import timedelta
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> recently, long_ago = noon - timedelta(seconds=3), noon - timedelta(seconds=60)
    >>> [lag_seconds(lambda: noon, t, behind=b) for t, b in ((recently, True), (recently, False), (long_ago, False))]
    [3.0, 0.0, 60.0]
    """
    age = (now() - until).total_seconds()
    return max(0.0, age) if behind or age > STALE_SECONDS else 0.0


def run_intake(
    open_source: Callable[[], Source],
    taker: Taker,
    metrics: Metrics,
    stopped: threading.Event,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    now: Callable[[], datetime] = SYSTEM_CLOCK.now,
) -> None:
    """Read a source until told to stop; open it anew, with patience, whenever anything fails."""
    pause = SHORTEST_PAUSE_SECONDS
    while not stopped.is_set():
        try:
            with contextlib.closing(Intake(open_source(), taker, metrics, limits, now=now)) as intake:
                metrics.source_up.set(1)
                while not stopped.is_set():
                    intake.step()
                    pause = SHORTEST_PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - without this thread nothing would be read any more
            metrics.source_up.set(0)
            reason = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            log.error("the source failed, opening it anew", reason=reason, after_seconds=pause)
            stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
