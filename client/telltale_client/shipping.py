"""A bounded queue and the one thread that empties it. The pod's threads only append to it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

from telltale_client.batches import Batch, Receipt, RefusedError, Transport, UnavailableError
from telltale_client.encoding import encode
from telltale_client.spill import Spill

BATCH_EVENTS = 1000
BATCH_BYTES = 1024 * 1024
EVENTS_AT_A_STRETCH = 50
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
        Not sent yet, in memory.
    delivered
        Taken in by the server.
    rejected
        Put into its dead letters by the server.
    dropped
        Lost in the pod: the queue was full, the logger closed, or the server refused the batch.
    failed
        Calls whose arguments could not be read; what could be read of them was logged.
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
    """Takes events, and sends them in batches on a thread that begins with the first event."""

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
        self._held: deque[Batch] = deque()
        self._lock = threading.RLock()  # a signal handler may log while its thread holds it
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._flushing = False
        self._closing = False
        self._deadline = float("inf")
        self._next_batch = self._next_report = self._next_told = self._not_before = 0.0
        self._delivered = self._rejected = self._dropped = self._unreported = self._failed = 0
        self._retries = self._failures = 0
        self._last_error = ""

    def after_fork(self) -> None:
        """Begin anew in a child process: what waits is the parent's to send."""
        self._transport.abandon()
        if self._spill is not None:
            self._spill.put_back()
        self.reset()

    def put(self, event: dict[str, Any]) -> None:
        """Take an event, or count it as dropped where there is no room."""
        waiting = len(self._queue)
        if waiting >= self._capacity or self._closing:
            self._lose(1)
            return
        self._queue.append(event)
        if self._thread is None:
            self._start()
        elif waiting + 1 == BATCH_EVENTS:
            self._wake.set()

    def note_failure(self, error: Exception) -> None:
        """Count a call that could not be understood."""
        with self._lock:
            self._failed += 1
            self._last_error = f"{type(error).__name__}: {str(error)[:200]}"

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left in memory: all is delivered, refused or on disk. Whether it came to that."""
        deadline = time.monotonic() + timeout
        self._flushing = True
        self._not_before = 0.0
        self._wake.set()
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
        self._deadline = time.monotonic() + timeout
        self._closing = True
        self._not_before = 0.0
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + POLL_SECONDS)
        if not self._idle():
            self._give_up()
        if thread is None or not thread.is_alive():
            self._transport.close()

    def stats(self) -> Stats:
        """What has become of the events so far."""
        return Stats(
            waiting=len(self._queue) + sum(b.events for b in tuple(self._held)),
            delivered=self._delivered,
            rejected=self._rejected,
            dropped=self._dropped,
            failed=self._failed,
            retries=self._retries,
            spilled=self._spill.count() if self._spill else 0,
            last_error=self._last_error,
        )

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="telltale-client", daemon=True)
                thread.start()
                self._thread = thread
                _close_with_a_worker(self)

    def _idle(self) -> bool:
        return not self._queue and not self._busy and not self._held

    def _run(self) -> None:
        self._next_batch = time.monotonic() + LINGER_SECONDS
        while True:
            self._busy = True
            try:
                pause = self._turn()
            except Exception as error:
                log.exception("a fault of telltale-client; it goes on")
                self._last_error = f"{type(error).__name__}: {str(error)[:200]}"
                pause = LINGER_SECONDS
            finally:
                self._busy = False
            if self._closing and (time.monotonic() > self._deadline or (pause and self._idle())):
                return
            if pause:
                self._wake.wait(min(pause, max(0.0, self._deadline - time.monotonic())))
                self._wake.clear()

    def _turn(self) -> float:
        """Do one thing that is to be done now. How many seconds there is nothing more to do."""
        now = time.monotonic()
        if now < self._not_before:
            if self._spill is not None and (self._closing or len(self._queue) > self._capacity // 2):
                return 0.0 if self._spill_one() else self._not_before - now
            return min(self._not_before - now, LINGER_SECONDS)
        if not self._held and self._due(now):
            self._form(now)
        if self._held:
            self._deliver(self._held[0])
            return 0.0
        if self._spill is not None and not self._closing and (batch := self._spill.take()) is not None:
            self._deliver_spilled(batch, self._spill)
            return 0.0
        return LINGER_SECONDS

    def _due(self, now: float) -> bool:
        waiting = len(self._queue)
        if not waiting:
            return self._unreported > 0 and (now >= self._next_report or self._closing)
        return waiting >= BATCH_EVENTS or now >= self._next_batch or self._flushing or self._closing

    def _form(self, now: float) -> None:
        """Make a batch of what waits."""
        lines: list[bytes] = []
        size = 0
        while self._queue and len(lines) < BATCH_EVENTS and size < BATCH_BYTES:
            lines.append(encode(self._queue.popleft()))
            size += len(lines[-1])
            if not len(lines) % EVENTS_AT_A_STRETCH:
                time.sleep(0)  # lets the pod's threads have the interpreter
        reported = 0
        if self._unreported and (now >= self._next_report or self._closing):
            reported = self._take_unreported()
            lines.append(encode(self._report_of(reported)))
            self._next_report = now + REPORT_SECONDS
            log.warning("%d events were dropped; last trouble: %s", reported, self._last_error or "the queue was full")
        self._held.append(Batch(tuple(lines), reported=reported))
        self._next_batch = now + LINGER_SECONDS

    def _report_of(self, dropped: int) -> dict[str, Any]:
        resources = {"telltale_dropped": dropped}
        return {**self._report, "timestamp": time.time(), "ok": True, "latency_ms": 0.0, "resources": resources}

    def _take_unreported(self) -> int:
        with self._lock:
            reported, self._unreported = self._unreported, 0
        return reported

    def _lose(self, events: int, reported: int = 0) -> None:
        """Count lost events. ``reported``: those of before that a lost line would have told of."""
        with self._lock:
            self._dropped += events
            self._unreported += events + reported

    def _deliver(self, batch: Batch) -> None:
        try:
            receipt = self._transport.send(batch)
        except UnavailableError as error:
            self._retry_later(error)
            if error.left is not None:
                self._delivered += batch.events - error.left.events
                self._put_away(batch)
                self._held.appendleft(batch := error.left)
            if self._spill is not None and self._spill.put(batch):
                self._put_away(batch)
        except Exception as error:  # noqa: BLE001 - what is sent again and again must not stop all that comes after it
            self._put_away(batch)
            self._refused(batch, error)
        else:
            self._put_away(batch)
            self._succeeded(batch, receipt)

    def _put_away(self, batch: Batch) -> None:
        with contextlib.suppress(ValueError):  # the end may have come in between, and put it away
            self._held.remove(batch)

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
        if self._failures:
            log.info("Telltale answers again")
        self._failures = 0
        self._delivered += receipt.accepted - bool(batch.reported)
        self._rejected += receipt.rejected
        if receipt.rejected:
            self._trouble(f"{receipt.rejected} events were put into dead letters: {receipt.reason}")

    def _refused(self, batch: Batch, error: Exception) -> None:
        if isinstance(error, RefusedError) and error.too_large and len(batch.lines) > 1:
            self._held.extendleft(reversed(batch.halves()))
            return
        self._lose(batch.events, batch.reported)
        self._next_report = max(self._next_report, time.monotonic() + REPORT_SECONDS)
        self._trouble(f"{batch.events} events were refused: {type(error).__name__}: {str(error)[:300]}")

    def _retry_later(self, error: UnavailableError) -> None:
        self._retries += 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_PAUSE_SECONDS)
        self._not_before = time.monotonic() + max(pause * random.uniform(0.5, 1.0), min(error.after, 60.0))
        self._failures += 1
        self._trouble(f"a batch could not be sent and will be sent again: {error}")

    def _trouble(self, told: str) -> None:
        self._last_error = told
        if time.monotonic() >= self._next_told:
            self._next_told = time.monotonic() + REPORT_SECONDS
            log.warning(told)

    def _spill_one(self) -> bool:
        """Put a batch on disk while nothing can be sent. Whether that worked."""
        if not self._held and self._queue:
            self._form(time.monotonic())
        if not self._held or self._spill is None or not self._spill.put(self._held[0]):
            return False
        self._held.popleft()
        return True

    def _give_up(self) -> None:
        """Put what is left on disk; count and tell what cannot be put there."""
        while self._spill_one():
            pass
        left = len(self._queue) + sum(batch.events for batch in self._held)
        self._queue.clear()
        self._held.clear()
        if left:
            self._lose(left)
            log.warning("%d events could not be sent before the end and are lost: %s", left, self._last_error)


def _close_with_a_worker(shipper: Shipper) -> None:
    """Close when a worker of multiprocessing ends: it leaves without what ``atexit`` does."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, shipper.close, (EXIT_SECONDS,), exitpriority=0)


def _after_fork() -> None:
    for shipper in tuple(_SHIPPERS):
        shipper.after_fork()


def _close_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for shipper in tuple(_SHIPPERS):
        shipper.close(max(0.0, deadline - time.monotonic()))


_SHIPPERS: weakref.WeakSet[Shipper] = weakref.WeakSet()
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
