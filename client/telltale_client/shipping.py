"""A bounded queue and the one thread that empties it. The pod's threads only append to it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import random
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from telltale_client.batches import Batch, Receipt, RefusedError, Transport, UnavailableError
from telltale_client.encoding import described, encode
from telltale_client.spill import Spill

BATCH_EVENTS = 1000
BATCH_BYTES = 1024 * 1024
EVENTS_AT_A_STRETCH = 50
QUEUE_BYTES = 64 * 1024 * 1024
"""What waits in memory takes no more, about: how large events are is learned from a few of them, and from batches."""
FEW_SAMPLES, MANY_SAMPLES = 64, 4
"""One of so many events is weighed, as that takes longer than all else: more of them where bytes are what is short."""
SAMPLES_FOR_A_MEAN = 4
EVENT_BYTES = 600
"""What an event takes beside its values, about."""
LINGER_SECONDS = 0.5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
REPORT_SECONDS = 60.0
EXIT_SECONDS = 5.0
POLL_SECONDS = 0.01
log = logging.getLogger("telltale_client")


@dataclass(frozen=True)
class Stats:
    """What has become of the events of this process.

    waiting
        Not sent yet, in memory. After the end: what a thread that hangs in a value or a disk has in its hands.
    delivered
        Taken in by the server.
    rejected
        Put into its dead letters by the server.
    dropped
        Lost in the pod: the queue was full, the logger closed, the event not to be encoded, or refused by the server.
    failed
        Calls that went wrong. Where only the features could not be read, the rest was logged; else nothing was.
    retries
        How often a batch could not be sent.
    spilled
        Batches that lie on disk now, of all processes that share the folder.
    last_error
        The newest trouble, in words; empty where there was none.
    """

    waiting: int
    delivered: int
    rejected: int
    dropped: int
    failed: int
    retries: int
    spilled: int
    last_error: str


class Shipper:
    """Takes events, and sends them in batches on a thread that begins with the first event.

    Every event is in one place: ``_queue``, ``_lines``, ``_held``, or in the hands of a thread, which counts in
    ``_in_hand``. Whoever takes it from there says what becomes of it, so that the end may come from any thread.
    """

    def __init__(self, transport: Transport, report: dict[str, Any], capacity: int, spill: Spill | None) -> None:
        self._transport = transport
        self._report = report
        self._capacity = capacity
        self._spill = spill
        self.reset()
        _SHIPPERS.add(self)

    def reset(self) -> None:
        """Begin with nothing: no events, no thread, no counts, no locks that another thread may have held."""
        self._queue: deque[dict[str, Any]] = deque()
        self._lines: list[bytes] = []
        self._held: deque[Batch] = deque()
        self._in_hand = 0
        self._lock = threading.RLock()  # a signal handler may log while its thread holds it
        # An Event may hang when a signal handler sets it within its own set.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._may_start = deque([None])  # taking it is one step, which no handler can come between
        self._busy = False
        self._flushing = False
        self._closing = self._over = False
        self._deadline = float("inf")
        self._next_batch = self._next_report = self._next_told = self._not_before = 0.0
        self._delivered = self._rejected = self._dropped = self._unreported = self._failed = 0
        self._retries = self._failures = 0
        self._last_error = ""
        self._event_bytes = self._line_bytes = 0.0
        self._make_room()

    def after_fork(self) -> None:
        """Begin anew in a child process: what waits is the parent's to send."""
        try:
            self._transport.abandon()
            if self._spill is not None:
                self._spill.put_back()
        finally:
            self.reset()

    def put(self, event: dict[str, Any]) -> None:
        """Take an event, or count it as dropped where there is no room."""
        waiting = len(self._queue)
        if waiting >= self._room or self._closing:
            self._lose(1)
            return
        self._queue.append(event)
        if not waiting % self._stride:
            self._weigh(event)
        if self._thread is None:
            self._start()
        elif waiting >= self._many and not self._woken:
            self._woken = True
            self._wake.put(None)
        if self._over:  # the end came between the question and the answer
            self._give_up()

    def note_failure(self, error: Exception) -> None:
        """Count a call that could not be understood."""
        with self._lock:
            self._failed += 1
            self._last_error = described(error)

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left in memory: all is delivered, refused or on disk. Whether it came to that."""
        deadline = time.monotonic() + timeout
        self._flushing = True
        self._not_before = 0.0
        self._wake.put(None)
        if self._queue and self._thread is None:
            self._start()
        try:
            while not self._idle():
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_SECONDS)
        finally:
            self._flushing = False
        return True

    def close(self, timeout: float) -> None:
        """Send what can be sent in some seconds; the rest goes to disk, or is dropped."""
        self.end_by(time.monotonic() + timeout)
        self.ended()

    def end_by(self, deadline: float) -> None:
        """Take nothing more, and let the thread end by then. Does not wait."""
        self._deadline = deadline
        self._closing = True
        self._not_before = 0.0
        self._wake.put(None)

    def ended(self) -> None:
        """Wait for the thread until its time is over. What it has not sent goes to disk, or is dropped."""
        if self._thread is not threading.current_thread():
            while self._thread is not None and not self._over and time.monotonic() < self._deadline + POLL_SECONDS:
                time.sleep(POLL_SECONDS)
        self._give_up()
        if self._thread is None:
            self._disconnect()

    def stats(self) -> Stats:
        """What has become of the events so far."""
        with self._lock:
            waiting = len(self._queue) + sum(b.events for b in self._held) + len(self._lines) + self._in_hand
        return Stats(
            waiting=waiting,
            delivered=self._delivered,
            rejected=self._rejected,
            dropped=self._dropped,
            failed=self._failed,
            retries=self._retries,
            spilled=self._spill.count() if self._spill else 0,
            last_error=self._last_error,
        )

    def _weigh(self, event: dict[str, Any]) -> None:
        """Learn how large events are, from a few of them."""
        try:
            values = [*event["features"].values(), event["prediction"]] if event.get("features") else event.values()
            size = EVENT_BYTES + sum(map(sys.getsizeof, values))
        except Exception:  # noqa: BLE001 - a value may raise anything when it is looked at
            return
        self._event_bytes += (size - self._event_bytes) / (SAMPLES_FOR_A_MEAN if self._event_bytes else 1)
        self._make_room()

    def _make_room(self) -> None:
        """How many events may wait, and how many are worth a batch before its time."""
        size = max(self._event_bytes, self._line_bytes, 1.0)
        self._room = max(1, min(self._capacity, int(QUEUE_BYTES / size)))
        self._stride = FEW_SAMPLES if self._room == self._capacity else MANY_SAMPLES
        self._many = min(BATCH_EVENTS, max(1, self._room // 2)) - 1

    def _start(self) -> None:
        try:
            self._may_start.popleft()
        except IndexError:
            return
        self._thread = threading.Thread(target=self._run, name="telltale-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no more threads; the next event tries again
            self._last_error = described(error)
            self._stopped()
        else:
            _close_with_a_worker()

    def _stopped(self) -> None:
        self._thread = None
        self._may_start.append(None)

    def _idle(self) -> bool:
        return not self._queue and not self._busy and not self._lines and not self._held

    def _run(self) -> None:
        try:
            self._next_batch = time.monotonic() + LINGER_SECONDS
            while not self._over:
                pause = self._turned()
                if self._closing and (time.monotonic() > self._deadline or (pause and self._idle())):
                    break
                if pause:
                    self._sleep(min(pause, max(0.0, self._deadline - time.monotonic())))
            self._give_up()
            self._disconnect()
        finally:
            self._stopped()

    def _turned(self) -> float:
        self._busy = True
        try:
            return self._turn()
        except BaseException as error:  # noqa: BLE001 - all later events need this thread
            self._trouble(f"a fault of telltale-client; it goes on: {described(error)}")
            return LINGER_SECONDS
        finally:
            self._busy = False

    def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()

    def _turn(self) -> float:
        """Do one thing that is to be done now. How many seconds there is nothing more to do."""
        now = time.monotonic()
        if now < self._not_before:
            if self._spill is not None and (self._closing or len(self._queue) > self._room // 2):
                return 0.0 if self._spill_one() else self._not_before - now
            return min(self._not_before - now, LINGER_SECONDS)
        if not self._held and self._due(now):
            self._form(now)
        if (first := self._first()) is not None:
            self._deliver(first)
            return 0.0
        if self._spill is not None and not self._closing and (batch := self._spill.take()) is not None:
            self._deliver_spilled(batch, self._spill)
            return 0.0
        return LINGER_SECONDS

    def _due(self, now: float) -> bool:
        waiting = len(self._queue) + len(self._lines)
        if not waiting:
            return self._unreported > 0 and (now >= self._next_report or self._closing)
        return waiting > self._many or now >= self._next_batch or self._flushing or self._closing

    def _form(self, now: float) -> None:
        """Make a batch of what waits. Several threads may, at the end."""
        self._woken = False
        size = 0
        while len(self._lines) < BATCH_EVENTS and size < BATCH_BYTES and (line := self._next_line()) is not None:
            size += len(line)
            if not len(self._lines) % EVENTS_AT_A_STRETCH:
                time.sleep(0)  # lets the pod's threads have the interpreter
        self._next_batch = now if size >= BATCH_BYTES else now + LINGER_SECONDS
        with self._lock:
            lines, self._lines, reported = self._lines, [], 0
            if self._unreported and (now >= self._next_report or self._closing):
                reported, self._unreported = self._unreported, 0
                self._next_report = now + REPORT_SECONDS
                lines.append(encode(self._report_of(reported)))
            if lines:
                self._held.append(Batch(tuple(lines), reported=reported))
                self._line_bytes = sum(map(len, lines)) / len(lines)
        self._make_room()
        if reported:
            why = self._last_error or "the queue was full"
            _say(logging.WARNING, f"{reported} events were dropped; last trouble: {why}")

    def _next_line(self) -> bytes | None:
        """The oldest event as a line, which is kept. None where there is none; empty where it has none."""
        with self._lock:
            if not self._queue:
                return None
            event = self._queue.popleft()
            self._in_hand += 1
        line, trouble = b"", ""
        try:
            line = encode(event)
        except BaseException as error:
            trouble = f"an event could not be encoded and is lost: {described(error)}"
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            with self._lock:
                self._in_hand -= 1
                if line:
                    self._lines.append(line)
                else:
                    self._lose(1)
        if trouble:
            self._trouble(trouble)
        return line

    def _report_of(self, dropped: int) -> dict[str, Any]:
        resources = {"telltale_dropped": dropped}
        return {**self._report, "timestamp": time.time(), "ok": True, "latency_ms": 0.0, "resources": resources}

    def _lose(self, events: int, reported: int = 0) -> None:
        """Count lost events. ``reported``: those of before that a lost line would have told of."""
        with self._lock:
            self._dropped += events
            self._unreported += events + reported

    def _first(self) -> Batch | None:
        with self._lock:
            return self._held[0] if self._held else None

    @contextlib.contextmanager
    def _taken(self, batch: Batch) -> Iterator[bool]:
        """Have a batch alone, and say what becomes of it. Not where somebody else has it: the end came meanwhile."""
        with self._lock:
            mine = batch in self._held
            if mine:
                self._held.remove(batch)
                self._in_hand += batch.events
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._in_hand -= batch.events

    def _deliver(self, batch: Batch) -> None:
        try:
            receipt = self._transport.send(batch)
        except UnavailableError as error:
            with self._taken(batch) as mine:
                if mine:
                    self._keep(error.left or batch)
                    self._delivered += batch.events - (error.left or batch).events
            self._retry_later(error)
        except Exception as error:  # noqa: BLE001 - what is sent again and again must not stop all that comes after it
            with self._taken(batch) as mine:
                if mine:
                    self._refused(batch, error)
        else:
            with self._taken(batch) as mine:
                if mine:
                    self._succeeded(batch, receipt)

    def _keep(self, batch: Batch) -> bool:
        """Put a batch on disk, else back in memory. Whether the disk has it."""
        try:
            kept = self._spill is not None and self._spill.put(batch)
        except BaseException:
            self._held.appendleft(batch)
            raise
        if not kept:
            self._held.appendleft(batch)
        return kept

    def _deliver_spilled(self, batch: Batch, spill: Spill) -> None:
        try:
            receipt = self._transport.send(batch)
        except UnavailableError as error:
            if error.left is not None and spill.put(error.left):
                self._delivered += batch.events - error.left.events
                spill.remove()
            spill.put_back()
            self._retry_later(error)
        except Exception as error:  # noqa: BLE001 - see above
            spill.remove()
            self._refused(batch, error)
        else:
            spill.remove()
            self._succeeded(batch, receipt)

    def _succeeded(self, batch: Batch, receipt: Receipt) -> None:
        recovered, self._failures = self._failures > 0, 0
        self._delivered += receipt.accepted - bool(batch.reported)
        self._rejected += receipt.rejected
        if recovered:
            _say(logging.INFO, "Telltale answers again")
        if receipt.rejected:
            self._trouble(f"{receipt.rejected} events were put into dead letters: {receipt.reason}")

    def _refused(self, batch: Batch, error: Exception) -> None:
        if isinstance(error, RefusedError) and error.too_large and len(batch.lines) > 1:
            self._held.extendleft(reversed(batch.halves()))
            return
        self._lose(batch.events, batch.reported)
        self._next_report = max(self._next_report, time.monotonic() + REPORT_SECONDS)
        self._trouble(f"{batch.events} events were refused: {described(error)}")

    def _retry_later(self, error: UnavailableError) -> None:
        self._retries += 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_PAUSE_SECONDS)
        self._not_before = time.monotonic() + max(pause * random.uniform(0.5, 1.0), min(error.after, 60.0))
        self._failures += 1
        level = logging.ERROR if error.for_people else logging.WARNING
        self._trouble(f"a batch could not be sent and will be sent again: {described(error)}", level)

    def _trouble(self, told: str, level: int = logging.WARNING) -> None:
        self._last_error = told
        if time.monotonic() >= self._next_told:
            self._next_told = time.monotonic() + REPORT_SECONDS
            _say(level, told)

    def _spill_one(self) -> bool:
        """Put a batch on disk while nothing can be sent. False where there is none, or the disk takes no more."""
        if not self._held:
            self._form(time.monotonic())
        batch = self._first()
        if batch is None:
            return False
        with self._taken(batch) as mine:
            return not mine or self._keep(batch)

    def _give_up(self) -> None:
        """Put what is left on disk; count and tell what cannot be put there. Several threads may do so at once."""
        self._over = True
        while self._spill is not None and (self._queue or self._lines or self._held) and self._spill_one():
            pass
        lost = 0
        with self._lock:
            lost += len(self._lines) + sum(batch.events for batch in self._held)
            self._lines.clear()
            self._held.clear()
            with contextlib.suppress(IndexError):
                while True:
                    self._queue.popleft()
                    lost += 1
        if lost:
            self._lose(lost)
            _say(logging.WARNING, f"{lost} events could not be sent before the end and are lost: {self._last_error}")

    def _disconnect(self) -> None:
        with contextlib.suppress(Exception):  # nothing is to be sent any more
            self._transport.close()


def _say(level: int, told: str) -> None:
    with contextlib.suppress(Exception):  # the pod's logging may fail, and events must not
        log.log(level, told)


def _close_with_a_worker() -> None:
    """Close when a worker of multiprocessing ends: it leaves without what ``atexit`` does."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _close_all, exitpriority=0)


def _after_fork() -> None:
    for shipper in tuple(_SHIPPERS):
        with contextlib.suppress(Exception):  # of one transport; the other loggers are to go on
            shipper.after_fork()


def _close_all() -> None:
    """End all loggers in one go: a server that does not answer one of them takes nothing of the others' time."""
    shippers = tuple(_SHIPPERS)
    deadline = time.monotonic() + EXIT_SECONDS
    for shipper in shippers:
        shipper.end_by(deadline)
    for shipper in shippers:
        with contextlib.suppress(Exception):
            shipper.ended()


_SHIPPERS: weakref.WeakSet[Shipper] = weakref.WeakSet()
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
