"""However a logger ends, and whatever hangs meanwhile, every event is sent, on disk, or counted as lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import pytest
from processes import wait_until

from telltale_client import Logger, shipping
from telltale_client.batches import Batch, Receipt, UnavailableError
from telltale_client.spill import Spill

CLIENT = Path(__file__).parents[2] / "client"


class Slow:
    """A transport that takes its time, and then takes batches or not."""

    def __init__(self, seconds: float = 0.0, *, fails: bool = False) -> None:
        self.seconds = seconds
        self.fails = fails
        self.batches: list[Batch] = []
        self.sending = False

    def send(self, batch: Batch) -> Receipt:
        self.sending = True
        time.sleep(self.seconds)
        if self.fails:
            raise UnavailableError("nobody is there")
        self.batches.append(batch)
        return Receipt(len(batch.lines))

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def spilled(folder: Path) -> Counter[str]:
    lines = [line for file in folder.glob("*.ndjson") for line in file.read_bytes().split(b"\n")]
    return Counter(event["prediction_id"] for event in map(json.loads, lines) if event["type"] == "prediction")


def test_a_batch_that_is_under_way_when_the_logger_closes_is_on_disk_once(tmp_path: Path) -> None:
    transport = Slow(1.0)
    logger = Logger("m", "1", server="pod-1", transport=transport, spill=tmp_path)
    logger.predict({"x": 1.0}, prediction_id="a")
    wait_until(lambda: transport.sending, "the batch to be under way", 10)
    logger.predict({"x": 1.0}, prediction_id="b")
    started = time.monotonic()
    logger.close(0.2)
    assert time.monotonic() - started < 0.9
    assert spilled(tmp_path) == {"a": 1, "b": 1}
    wait_until(lambda: transport.batches, "the batch to arrive after all", 10)
    time.sleep(0.1)
    stats = logger.stats()
    assert (stats.waiting, stats.delivered, stats.dropped) == (0, 0, 0)
    assert spilled(tmp_path) == {"a": 1, "b": 1}


def test_a_batch_that_is_being_written_when_the_logger_closes_is_on_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, writing = Spill.put, []

    def slowly(spill: Spill, batch: Batch) -> bool:
        writing.append(batch)
        time.sleep(0.5)
        return put(spill, batch)

    monkeypatch.setattr(Spill, "put", slowly)
    logger = Logger("m", "1", server="pod-1", transport=Slow(fails=True), spill=tmp_path)
    logger.predict({"x": 1.0}, prediction_id="a")
    wait_until(lambda: writing, "the disk to be written to", 10)
    logger.close(0.05)
    wait_until(lambda: not logger.stats().waiting, "the disk", 10)
    assert spilled(tmp_path) == {"a": 1}
    assert logger.stats().dropped == 0


@pytest.mark.parametrize("timeout", [0.0, 0.05, 0.2])
def test_closing_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path, timeout: float) -> None:
    for turn in range(3):
        folder = tmp_path / str(turn)
        logger = Logger("m", "1", server="pod-1", transport=Slow(fails=True), spill=folder)
        for n in range(4000):
            logger.predict({f"f{j}": j * 1.5 for j in range(10)}, prediction_id=str(n))
        time.sleep(0.02 * turn)
        logger.close(timeout)
        wait_until(lambda to=logger: not to.stats().waiting, "the end", 10)  # type: ignore[misc]  # bound at once
        found = spilled(folder)
        assert len(found) + logger.stats().dropped == 4000
        assert set(found.values()) == {1}


def test_loggers_that_end_together_do_not_take_each_others_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "EXIT_SECONDS", 1.0)
    monkeypatch.setattr(shipping, "LINGER_SECONDS", 30.0)
    monkeypatch.setattr(shipping, "_SHIPPERS", weakref.WeakSet())
    transports = [Slow(3.0), Slow(0.2), Slow(3.0), Slow(0.2)]
    loggers = [Logger("m", "1", server="pod-1", transport=t) for t in transports]
    for logger, transport in zip(loggers, transports, strict=True):
        for _ in range(shipping.BATCH_EVENTS):
            logger.predict()
        wait_until(lambda to=transport: to.sending, "the first batch", 10)  # type: ignore[misc]  # bound at once
        for _ in range(50):
            logger.predict()
    started = time.monotonic()
    shipping._close_all()  # noqa: SLF001 - what the end of the process calls
    assert time.monotonic() - started < 2.5
    assert [(s.delivered, s.dropped, s.waiting) for s in (each.stats() for each in loggers)] == [
        (0, 1050, 0),
        (1050, 0, 0),
        (0, 1050, 0),
        (1050, 0, 0),
    ]


INTERRUPTED = """
import faulthandler, random, sys, telltale_client.shipping as shipping
from telltale_client import Logger
from telltale_client.batches import Receipt
faulthandler.dump_traceback_later(40, exit=True)

class Takes:
    def send(self, batch): return Receipt(len(batch.lines))
    def close(self): pass
    def abandon(self): pass

chance, logged, inside = random.Random(1), 0, False

def handler():
    global inside, logged
    inside = True
    logger.predict({"x": 1.0}); logged += 1
    logger.flush(0)
    inside = False

def trace(frame, event, argument):
    if not inside and chance.random() < 0.2:
        handler()
    return trace

for _ in range(30):
    logger, logged = Logger("m", "1", transport=Takes(), capacity=20), 0
    sys.settrace(trace)
    for _ in range(12):
        logger.predict({"x": 1.0}); logged += 1
    logger.flush(0)
    logger.close(5)
    sys.settrace(None)
    stats = logger.stats()
    assert stats.waiting == 0, stats
    assert stats.delivered + stats.dropped == logged, (stats, logged)
"""


def test_a_signal_handler_may_log_and_flush_wherever_it_interrupts() -> None:
    # The handler runs before any line of the client, or of what it calls: where a signal could come.
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Slow()
    logger = Logger("m", "1", server="pod-1", transport=transport)
    dead = iter([True])

    def turn(shipper: shipping.Shipper) -> float:
        if next(dead, False):
            raise SystemExit
        return whole(shipper)

    whole = shipping.Shipper._turned  # noqa: SLF001 - nothing from outside ends the thread
    monkeypatch.setattr(shipping.Shipper, "_turned", turn)
    logger.predict()
    wait_until(lambda: logger._shipper and logger._shipper._thread is None, "the end of the thread", 10)  # noqa: SLF001 - it is told nowhere else
    logger.predict()
    assert logger.flush()
    assert logger.stats().delivered == 2
    logger.close()


def test_a_system_without_threads_keeps_events_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    logger = Logger("m", "1", server="pod-1", transport=Slow())
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", Never)
        logger.predict()
        assert (logger.stats().waiting, logger.stats().failed) == (1, 0)
    logger.predict()
    assert logger.flush()
    assert logger.stats().delivered == 2
    logger.close()


def test_a_fork_goes_on_when_one_of_the_loggers_cannot_let_go() -> None:
    class Stubborn(Slow):
        def abandon(self) -> None:
            raise OSError("no")

    loggers = [Logger("m", "1", server="pod-1", transport=kind()) for kind in (Stubborn, Slow, Stubborn)]
    for logger in loggers:
        logger.predict()
    child = os.fork()
    if not child:
        fresh = all(logger.stats().waiting == 0 for logger in loggers)
        for logger in loggers:
            logger.predict()
        os._exit(0 if fresh and all(logger.flush(10) for logger in loggers) else 1)
    assert os.waitpid(child, 0)[1] == 0
    for logger in loggers:
        logger.close()


def test_large_events_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "QUEUE_BYTES", 2_000_000)
    logger = Logger("m", "1", server="pod-1", transport=Slow(fails=True))
    chance = random.Random(1)
    for n in range(2000):
        logger.predict({"text": "x" * chance.randrange(5_000, 35_000), "n": n})
    stats = logger.stats()
    assert 50 < stats.waiting < 200
    assert stats.waiting + stats.dropped == 2000
    logger.close(0.1)


def test_large_values_within_others_do_not_fill_the_memory_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "QUEUE_BYTES", 2_000_000)
    transport = Slow(fails=True)
    logger = Logger("m", "1", server="pod-1", transport=transport)
    logger.predict({"deep": [["x" * 20_000]]})
    wait_until(lambda: transport.sending, "the first batch", 10)
    for _ in range(2000):
        logger.predict({"deep": [["x" * 20_000]]})
    assert 50 < logger.stats().waiting < 300
    logger.close(0.1)


@pytest.mark.parametrize("capacity", [1, 5, 500])
def test_a_small_queue_is_emptied_before_it_is_full(capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "LINGER_SECONDS", 30.0)
    logger = Logger("m", "1", server="pod-1", transport=Slow(), capacity=capacity)
    logger.predict()
    for _ in range(20):
        for _ in range(max(1, capacity // 4)):
            logger.predict()
        wait_until(lambda: logger.stats().waiting <= capacity // 2, "the queue to be emptied", 10)
    assert logger.stats().dropped <= (1 if capacity == 1 else 0)
    logger.close()


def test_events_that_become_larger_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "QUEUE_BYTES", 4_000_000)
    logger = Logger("m", "1", server="pod-1", transport=Slow(30.0))
    for n in range(100):
        logger.predict({"n": n})
    for n in range(2000):
        logger.predict({"text": "x" * 20_000, "n": n})
    assert logger.stats().waiting * 20_000 < 10_000_000
    logger.close(0.0)
