"""Telltale under fire: three processes read a real broker, one folds hours, and everything is killed again and again.

At the end the store is held against an exact count of what was sent. ``make chaos`` prints the table of a long run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml
from broker import Broker, Node
from chaos_events import DECLARED, HOUR, HOURS, MODEL, PARTITIONS, Difference, Events, differences, reference
from clickhouse import ClickHouse, clickhouse_server, opened
from processes import Process, free_port, wait_until

from monitor.config import ClickHouseSpec
from monitor.config_file import load
from monitor.remote import RemoteError, RemoteService
from monitor.service import Service

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("chaos_launcher.py")
POINTS = ("after intent", "after rows", "after profiles", "before acknowledgement")
FOLDING = "inside folding"
READERS = 3
SESSION_MS = 3000
PAUSE_SECONDS = SESSION_MS / 1000 + 4
"""Put out of the group without knowing, and another one has had the time to take the partitions over."""
AFTERMATH_SECONDS = 3.0
"""So long may a process that was stopped do harm before it is made to die for another fault."""
SLOW_SECONDS = 5.0
CHUNKS = 40
TRICKLE = 30
"""Events are always coming while faults are still to be had, however fast the others were taken in."""


@dataclass(frozen=True)
class Plan:
    """What is to happen, and how often."""

    seed: int = 1
    events: int = 12_000
    kills_per_point: int = 1
    pauses_at_points: int = 1
    random_kills: int = 1
    random_pauses: int = 1
    clickhouse_kills: int = 1
    broker_kills: int = 1
    slow_spells: int = 1
    rows: tuple[int, int] = (100, 1500)
    mutant: str = ""
    seconds: float = 300
    patience_seconds: float = 60
    """The log is not taken in when nothing more was committed for so long."""


@dataclass(frozen=True)
class Fault:
    """What a process does to itself at a point."""

    point: str
    passes: int
    signal: signal.Signals = signal.SIGKILL

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"{'killed' if self.signal is signal.SIGKILL else 'stopped'} {self.point}"


@dataclass
class Room:
    """A process that is started again whenever it has ended, each time with the next fault of the schedule."""

    name: str
    only: str
    port: int = field(default_factory=free_port)
    process: Process | None = None
    fault: Fault | None = None
    told: int = 0
    printed: int = 0
    wake_at: float | None = None
    woken: float | None = None


@dataclass
class Report:
    """What happened, and what is in the store."""

    faults: Counter[str]
    restarts: int
    events: int
    garbage: int
    taken_in: bool
    audit: list[dict[str, object]]
    differences: dict[str, Difference]
    exit_codes: set[int]
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether everything is there once."""
        return self.taken_in and not self.audit and all(d.nothing for d in self.differences.values())

    def __str__(self) -> str:
        lines = ["| what | |", "| --- | --- |"]
        lines += [f"| {name} | {count} |" for name, count in sorted(self.faults.items())]
        lines += [f"| processes started again | {self.restarts} |", f"| events sent | {self.events:,} |"]
        lines += [f"| lines of garbage sent | {self.garbage:,} |"]
        lines += ["", "| in the store | expected | lost | duplicated |", "| --- | --- | --- | --- |"]
        lines += [f"| {n} | {d.expected:,} | {d.lost} | {d.duplicated} |" for n, d in self.differences.items()]
        lines += ["", f"The auditor finds {len(self.audit)} disagreements. {self.seconds:.0f} s."]
        lines += [] if self.taken_in else ["The log was not taken in to its end."]
        return "\n".join(lines)


class Chaos:
    """One run: the servers and the processes, and what is done to them."""

    def __init__(self, plan: Plan, broker: Broker, clickhouse: ClickHouse, folder: Path) -> None:
        self._plan = plan
        self._broker = broker
        self._node = broker.node
        self._clickhouse = clickhouse
        self._folder = folder
        self._chance = random.Random(plan.seed)
        self._topic = broker.topic(PARTITIONS)
        self._begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - (HOURS + 1) * HOUR
        self._events = Events(plan.seed, self._begin, plan.events)
        self._config = folder / "telltale.yaml"
        self._rooms = [Room(f"ingest-{n}", "ingest") for n in range(READERS)] + [Room("judge", "judge")]
        self._schedule = self._faults()
        self._outside = self._disturbances()
        self._total = len(self._outside) + sum(map(len, self._schedule.values()))
        self._happened: Counter[str] = Counter()
        self._restarts = -len(self._rooms)
        self._calm = threading.Event()
        self._sending = threading.Lock()
        self._deadline = time.monotonic() + plan.seconds

    def run(self) -> Report:
        """All of it. Raises TimeoutError, with what the processes said last, when it does not come to its end."""
        started = time.monotonic()
        self._prepare()
        try:
            with self._in_background(self._send), self._in_background(self._fold), self._in_background(self._disturb):
                self._until_all_has_happened()
            taken_in = self._drain()
            self._fold_all()
            codes = {room.process.stop(30) for room in self._rooms if room.process}
            audit = self._audit()
            found = self._differences()
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._told()}") from error
        finally:
            for room in self._rooms:
                if room.process:
                    room.process.send(signal.SIGCONT)
                    room.process.kill()
        seconds = time.monotonic() - started
        sent, garbage = self._events.sent, self._events.garbage
        return Report(self._happened, self._restarts, sent, garbage, taken_in, audit, found, codes, seconds)

    # What is to happen

    def _faults(self) -> dict[str, list[Fault]]:
        """What the processes do to themselves, in the order in which they are given it."""
        plan, chance = self._plan, self._chance
        kills = [Fault(p, chance.randint(1, 3)) for p in POINTS for _ in range(plan.kills_per_point)]
        pauses = [Fault(POINTS[n % 3], chance.randint(2, 4), signal.SIGSTOP) for n in range(plan.pauses_at_points)]
        chance.shuffle(kills)
        ingest = [*kills, *pauses]
        if len(kills) > READERS:
            chance.shuffle(ingest)
        folding = [Fault(FOLDING, chance.randint(1, 4)) for _ in range(plan.kills_per_point)]
        return {"ingest": ingest, "judge": folding}

    def _disturbances(self) -> list[Callable[[], bool]]:
        plan = self._plan
        all_of_them = [
            *[self._kill_one] * plan.random_kills,
            *[self._pause_one] * plan.random_pauses,
            *[self._kill_clickhouse] * plan.clickhouse_kills,
            *[self._kill_broker] * plan.broker_kills,
            *[self._slow_clickhouse] * plan.slow_spells,
        ]
        self._chance.shuffle(all_of_them)
        return all_of_them

    def _left(self) -> int:
        """How many faults are still to come."""
        planted = sum(room.fault is not None for room in self._rooms)
        return len(self._outside) + planted + sum(map(len, self._schedule.values()))

    # The run

    def _prepare(self) -> None:
        """The configuration, the tables, and a reference, so that there is a layout from the beginning."""
        kafka = {"bootstrap_servers": [self._broker.bootstrap], "topics": [self._topic], "group": self._topic}
        config = {
            "store": {"path": "data", "clickhouse": {"url": self._clickhouse.url}},
            "sources": {"kafka": kafka},
            "models": {MODEL: DECLARED},
        }
        self._config.write_text(yaml.safe_dump(config), "utf-8")
        with Service(load(self._config)) as service:
            service.register_reference(MODEL, reference(self._plan.seed), "reference")

    def _until_all_has_happened(self) -> None:
        while self._left() or any(room.wake_at for room in self._rooms):
            self._tend()
            self._check_time("the faults")
            time.sleep(0.05)

    def _drain(self) -> bool:
        """Wait until everybody is well and all is committed, with nothing begun. Whether it comes to that."""
        seen: object = None
        since = time.monotonic()
        while True:
            self._tend()
            ends, marks = self._ends_and_marks()
            if marks == ends:
                return True
            if marks != seen:
                seen, since = marks, time.monotonic()
            if time.monotonic() - since > self._plan.patience_seconds:
                return False
            time.sleep(0.5)

    def _ends_and_marks(self) -> tuple[list[int], list[int]]:
        """Where each partition ends, and up to where it is taken in; one less while a batch is begun."""
        from kafka import KafkaConsumer, TopicPartition

        places = [TopicPartition(self._topic, n) for n in range(PARTITIONS)]
        with contextlib.closing(
            KafkaConsumer(bootstrap_servers=self._broker.bootstrap, group_id=self._topic, enable_auto_commit=False)
        ) as consumer:
            ends = consumer.end_offsets(places)
            marks = [consumer.committed(place, metadata=True) for place in places]
        return [ends[place] for place in places], [m.offset - ('"end"' in m.metadata) if m else -1 for m in marks]

    def _fold_all(self) -> None:
        judge = self._rooms[-1]

        def folded() -> bool:
            self._tend()
            with contextlib.suppress(RemoteError), RemoteService(f"http://127.0.0.1:{judge.port}") as service:
                service.evaluate(MODEL, self._begin + HOURS * HOUR)
                return True
            return False

        wait_until(folded, "the hours being folded", max(self._deadline - time.monotonic(), 10), pause=0.2)

    def _audit(self) -> list[dict[str, object]]:
        log = self._folder / "audit.json"
        command = [sys.executable, "-m", "monitor.cli", "audit", "--json"]
        audit = Process(command, log, {"PYTHONPATH": str(ROOT), "TELLTALE_CONFIG": str(self._config)})
        wait_until(lambda: not audit.alive(), "telltale audit", 120)
        said = [line for line in audit.output().splitlines() if line.startswith('{"from"')]
        if not said:
            raise AssertionError(f"telltale audit: {audit.output()[-2000:]}")
        found: list[dict[str, object]] = json.loads(said[-1])["disagreements"]
        return found

    def _differences(self) -> dict[str, Difference]:
        with Service(load(self._config)) as service:
            model = service.registry.get("production", MODEL)
            with opened(ClickHouseSpec(url=self._clickhouse.url)) as store:
                return differences(self._events, store, model, self._begin)

    def _check_time(self, what: str) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"not within {self._plan.seconds:g} s: {what}; {self._left()} faults left")

    def _told(self) -> str:
        shown = [(room.name, room.fault, room.process.output()[-3000:]) for room in self._rooms if room.process]
        return "\n".join(f"--- {name}, {fault}\n{text}" for name, fault, text in shown)

    # Beside it

    def _disturb(self) -> None:
        """Do to them what they do not do to themselves."""
        while self._outside and not self._calm.wait(self._chance.uniform(0.5, 2)):
            if self._outside[-1]():
                self._outside.pop()

    @contextlib.contextmanager
    def _in_background(self, work: Callable[[], None]) -> Iterator[None]:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        except BaseException:
            self._calm.set()
            raise
        finally:
            if not self._left():
                self._calm.set()
            thread.join()

    def _send(self) -> None:
        """Send events a few at a time: as large a part of them as of the faults that have been."""
        while not self._calm.is_set() or (self._events.sent < self._plan.events and not self._left()):
            part = 1 - self._left() / (self._total + 1)
            due = int(part * self._plan.events) - self._events.sent
            count = max(min(due, self._plan.events // CHUNKS), TRICKLE)
            with self._sending:  # so that it is known of each message whether the broker has it
                self._broker.produce(self._topic, self._events.messages(count))
            self._calm.wait(0.3)

    def _fold(self) -> None:
        """Ask the judge again and again about hours that are still being written to."""
        judge = self._rooms[-1]
        while not self._calm.wait(1):
            with contextlib.suppress(RemoteError), RemoteService(f"http://127.0.0.1:{judge.port}") as service:
                service.evaluate(MODEL, self._begin + HOURS * HOUR)

    # The processes

    def _start(self, room: Room) -> None:
        room.woken = None
        waiting = self._schedule[room.only]
        room.fault = waiting.pop() if waiting else None
        journal, log = self._folder / f"{room.name}.journal", self._folder / f"{room.name}.log"
        fault = room.fault or Fault("", 0)
        chaos = {
            "point": fault.point,
            "passes": fault.passes,
            "signal": int(fault.signal),
            "journal": str(journal),
            "session_ms": SESSION_MS,
            "rows": self._chance.randint(*self._plan.rows),
            "seconds": self._chance.uniform(0.5, 2),
            "mutant": self._plan.mutant,
        }
        journal.touch()
        room.printed = log.stat().st_size if log.exists() else 0
        command = [sys.executable, str(LAUNCHER), "run", "--only", room.only, "--port", str(room.port)]
        environment = {"PYTHONPATH": str(ROOT), "TELLTALE_CONFIG": str(self._config), "CHAOS": json.dumps(chaos)}
        room.process = Process(command, log, environment)
        self._restarts += 1

    def _tend(self) -> None:
        """Note what the processes did to themselves, wake those that stopped, and start those that ended."""
        for room in self._rooms:
            if room.process is None:
                self._start(room)
                continue
            ended = not room.process.alive()
            told = len((self._folder / f"{room.name}.journal").read_text().splitlines())
            if told > room.told and room.fault is not None:
                room.told = told
                self._happened[room.fault.name] += 1
                if room.fault.signal is signal.SIGSTOP:
                    room.wake_at = time.monotonic() + PAUSE_SECONDS
                room.fault = None
            if room.wake_at is not None and time.monotonic() >= room.wake_at:
                room.process.send(signal.SIGCONT)
                room.wake_at, room.woken = None, time.monotonic()
            if ended:
                if room.fault is not None:
                    self._schedule[room.only].append(room.fault)
                self._start(room)
            elif self._has_done_its_part(room):
                room.process.kill()
                self._happened["killed at any moment"] += 1

    def _has_done_its_part(self, room: Room) -> bool:
        """Whether it goes on, as it was stopped and not killed, while there are faults to be planted."""
        if room.woken is None or not self._schedule[room.only]:
            return False
        return time.monotonic() > room.woken + AFTERMATH_SECONDS

    # What is done to them. Each says whether it could be done.

    def _victim(self) -> Room | None:
        """A process that reads, with no fault planted if there is one."""

        def reads(room: Room) -> bool:
            with (self._folder / f"{room.name}.log").open("rb") as log:
                log.seek(room.printed)
                return b"reading" in log.read()

        reading = [r for r in self._rooms if r.only == "ingest" and r.process and r.wake_at is None and reads(r)]
        self._chance.shuffle(reading)
        return min(reading, key=lambda room: room.fault is not None, default=None)

    def _kill_one(self) -> bool:
        room = self._victim()
        if room is None or room.process is None:
            return False
        room.process.kill()
        self._happened["killed at any moment"] += 1
        return True

    def _pause_one(self) -> bool:
        room = self._victim()
        if room is None or room.process is None:
            return False
        room.process.send(signal.SIGSTOP)
        room.wake_at = time.monotonic() + PAUSE_SECONDS
        self._happened["stopped at any moment"] += 1
        return True

    def _kill_clickhouse(self) -> bool:
        self._clickhouse.kill()
        time.sleep(self._chance.uniform(0, 2))
        self._clickhouse.start()
        self._happened["ClickHouse server killed"] += 1
        return True

    def _kill_broker(self) -> bool:
        with self._sending:
            self._node.kill()
            time.sleep(self._chance.uniform(0, 1))
            self._node.start()
        self._happened["broker killed"] += 1
        return True

    def _slow_clickhouse(self) -> bool:
        self._clickhouse.process.send(signal.SIGSTOP)
        time.sleep(SLOW_SECONDS)
        self._clickhouse.process.send(signal.SIGCONT)
        self._happened["ClickHouse server slow"] += 1
        return True


def run_chaos(plan: Plan, broker: Broker, folder: Path) -> Report:
    """A run on a broker that may be killed, with a ClickHouse server of its own."""
    with clickhouse_server(folder / "clickhouse") as clickhouse:
        return Chaos(plan, broker, clickhouse, folder).run()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2), "big"))
    arguments.add_argument("--events", type=int, default=300_000)
    arguments.add_argument("--kills", type=int, default=60, help="of processes, at least 50: 10 at each named point")
    arguments.add_argument("--mutant", choices=("no seek", "no intent"), default="", help="which must not pass")
    arguments.add_argument("--hours", type=float, default=1.0, help="after which it is given up")
    given = arguments.parse_args()
    points = len(POINTS) + 1
    each = max(10, given.kills * 2 // 3 // points)
    plan = Plan(
        seed=given.seed,
        events=given.events,
        kills_per_point=each,
        pauses_at_points=4,
        random_kills=max(given.kills - each * points, 0),
        random_pauses=4,
        clickhouse_kills=5,
        broker_kills=3,
        slow_spells=4,
        rows=(1_000, 8_000),
        mutant=given.mutant,
        seconds=given.hours * 3600,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that nothing is left running
    sys.stdout.write(f"seed {plan.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kafka").mkdir()
        node = Node(Path(folder) / "kafka")
        try:
            node.start()
            report = run_chaos(plan, Broker(f"127.0.0.1:{node.port}", node), Path(folder))
        finally:
            node.kill()
    sys.stdout.write(f"{report}\n" + "".join(f"{disagreement}\n" for disagreement in report.audit[:20]))
    sys.exit(0 if report.exact else 1)


if __name__ == "__main__":
    main()
