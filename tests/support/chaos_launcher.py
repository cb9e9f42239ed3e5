"""Starts the command line with a fault planted in its own process: at a named point it kills or stops itself.

The plan is JSON in CHAOS:

point, passes, signal
    Where, the how manieth time it is there, and the signal it sends itself.
journal
    A file that gets a line when that happens.
session_ms
    The group's session time-out.
rows, seconds
    When batches are closed. Members differ, so a batch that is not formed again from its intent becomes another one.
mutant
    "no seek" or "no intent": a product without that part. It must not pass the test.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monitor.cli
import monitor.intake
import monitor.sources.kafka
from monitor.batches import Buffer, Limits
from monitor.sources import Mark, Message, Place
from monitor.sources.kafka import Kafka
from monitor.store.server import ServerStore

AFTER_INSERT = {
    "predictions": "after rows",
    "profile_batches": "after profiles",
    "profile_hours": "inside folding",
    "batches": "before acknowledgement",
}
AFTER_INTENT = "after intent"


def plant(plan: Mapping[str, Any]) -> None:
    """Put the fault where the plan says."""
    passes = itertools.count(1)

    def reached(point: str) -> None:
        if point == plan["point"] and next(passes) == plan["passes"]:
            with Path(plan["journal"]).open("a") as journal:
                journal.write(f"{point}\n")
            os.kill(os.getpid(), plan["signal"])

    insert, commit = ServerStore.insert, Kafka.commit

    @functools.wraps(insert)
    def watched_insert(self: ServerStore, table: str, rows: Any) -> None:
        insert(self, table, rows)
        reached(AFTER_INSERT.get(table, ""))

    @functools.wraps(commit)
    def watched_commit(self: Kafka, marks: Mapping[Place, Mark]) -> None:
        commit(self, marks)
        if any('"end"' in mark.note for mark in marks.values()):
            reached(AFTER_INTENT)

    ServerStore.insert, Kafka.commit = watched_insert, watched_commit  # type: ignore[method-assign]  # for this process


def set_limits(plan: Mapping[str, Any]) -> None:
    """What is constant in the product, made small enough for a test."""
    heartbeat_ms = plan["session_ms"] // 4
    monitor.sources.kafka.SETTINGS = {
        **monitor.sources.kafka.SETTINGS,
        "session_timeout_ms": plan["session_ms"],
        "heartbeat_interval_ms": heartbeat_ms,
    }
    limits = Limits(rows=plan["rows"], seconds=plan["seconds"])
    monitor.intake.run_intake = functools.partial(monitor.intake.run_intake, limits=limits)


def without_seek() -> None:
    """A member goes on where its client happens to be, and takes what comes from there."""
    seek, add = Kafka.seek, Buffer.add

    def seek_to_begin(self: Kafka, place: Place, offset: int) -> None:
        if self.mark(place) is None:
            seek(self, place, offset)

    def add_whatever_comes(self: Buffer, messages: Sequence[Message], now: float) -> None:
        while add(self, messages, now) is not None:
            pass

    Kafka.seek, Buffer.add = seek_to_begin, add_whatever_comes  # type: ignore[method-assign]  # for this process


def without_intent() -> None:
    """A member goes on at the committed offset, and forms the batches that its own limits make there."""
    monitor.intake.read_intent = lambda _: None


MUTANTS = {"": lambda: None, "no seek": without_seek, "no intent": without_intent}

if __name__ == "__main__":
    given = json.loads(os.environ["CHAOS"])
    set_limits(given)
    plant(given)
    MUTANTS[given["mutant"]]()
    monitor.cli.main()
