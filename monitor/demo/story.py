"""The demo's story. It says what happens in the world; what Telltale makes of it is Telltale's.

Demo time moves in steps of ten minutes. Each step the pods serve and ship their logs, all at once and over HTTP, then
the clock moves and the same jobs run that the schedule would run. So the demo is as fast as the machine allows and
tells the same story on a slow one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from monitor.config import Config
from monitor.config_file import loads
from monitor.demo.ci import Ci
from monitor.demo.pods import MODEL, HealthPages, Pods, Step
from monitor.demo.world import SERVERS, Plan, train
from monitor.running import listening, serve
from monitor.service import Service
from monitor.store import StoreBusyError

FOLDER = Path(".demo")
STEP = timedelta(minutes=10)
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
ROLL_OUT = BEGIN + timedelta(hours=4)
UPSTREAM_BREAKS = BEGIN + timedelta(hours=10)
UPSTREAM_REPAIRED = BEGIN + timedelta(hours=15)
LATEST_END = BEGIN + timedelta(hours=30)
LAST_EVENT = "alert_resolved"
SECRET_FILE = "ci.secret"  # noqa: S105 - a file's name

Entry = dict[str, Any]


@dataclass
class DemoClock:
    """Stands still until it is moved."""

    at: datetime

    def now(self) -> datetime:
        """The demo's time."""
        return self.at


class Story:
    """The demo as it goes on."""

    def __init__(self, seed: int, folder: Path, show: Callable[[Entry], None], port: int = 0) -> None:
        self.plan = Plan.of(seed)
        self.clock = DemoClock(BEGIN)
        self._show = show
        self._shown = 0
        self._running = contextlib.ExitStack()
        try:
            self._begin(seed, folder, port)
        except BaseException:
            self._running.close()
            raise

    def _begin(self, seed: int, folder: Path, port: int) -> None:
        listener, self.url = self._running.enter_context(listening("127.0.0.1", port))
        clear(folder)
        training, versions = train(seed)
        training.write_parquet(folder / "train.parquet")
        secret = "whsec_" + secrets.token_hex(16)
        (folder / SECRET_FILE).write_text(secret, "utf-8")
        health = self._with(HealthPages(), HealthPages.stop)
        ci = self._with(Ci(secret, self.clock.now, self._put_back), Ci.stop)
        config = write_config(folder, ci.url, health.url)
        self.service = self._running.enter_context(Service(config, self.clock, callback_base=self.url))
        self._running.enter_context(serve(self.service, listener, self.url))
        self.pods = self._with(Pods(seed, self.url, self.plan, versions, training), Pods.stop)
        self._announce("1", SERVERS)

    def _with(self, thing: Any, stop: Callable[[Any], None]) -> Any:
        self._running.callback(stop, thing)
        return thing

    def steps(self) -> Iterator[float]:
        """Play the story step by step; gives how far it is, from 0 to 1."""
        while self.clock.at < LATEST_END and not self._ended():
            step = Step(self.clock.at, self.clock.at + STEP, UPSTREAM_BREAKS <= self.clock.at < UPSTREAM_REPAIRED)
            if step.start == ROLL_OUT:
                self._announce("2", self.plan.new_version_servers)
                self.pods.deploy("2", self.plan.new_version_servers)
            self.clock.at = step.end
            self.pods.serve(step)
            self.service.probe(self.clock.at)
            self.service.tick(self.clock.at)
            self._tell()
            yield (self.clock.at - BEGIN) / (LATEST_END - BEGIN)

    def close(self) -> None:
        """End all threads and servers."""
        self._running.close()

    def _announce(self, version: str, servers: tuple[str, ...]) -> None:
        event = {"type": "release", "model": MODEL, "version": version, "action": "deploy", "servers": servers}
        body = json.dumps({**event, "timestamp": self.clock.at.isoformat(), "by": "demo"}).encode()
        self.service.take(body, "http")

    def _put_back(self, accused: str, target: str) -> None:
        self.pods.deploy(target, self.pods.serving(accused))

    def _tell(self) -> None:
        for entry in self.service.ledger.timeline(after=self._shown, limit=1000):
            self._shown = entry.id
            self._show(entry.as_line())

    def _ended(self) -> bool:
        return any(e.event == LAST_EVENT for e in self.service.ledger.timeline(after=0, limit=10_000))


def clear(folder: Path) -> None:
    """Make the folder an empty one. Raises StoreBusyError when a service holds the data in it."""
    with contextlib.ExitStack() as held:
        lock = folder / "data" / "lock"
        if lock.exists():
            file = held.enter_context(lock.open())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreBusyError(f"{folder} is in use by another demo; stop that one first") from None
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def write_config(folder: Path, ci_url: str, health_url: Callable[[str], str]) -> Config:
    """The demo's configuration, as a file that can be looked at."""
    sections = {
        "store": {"path": "data"},
        "models": {
            MODEL: {
                "task": "classification",
                "features": {
                    **dict.fromkeys(("income", "age", "utilisation", "tenure", "distance"), "numeric"),
                    "region": "categorical",
                },
                "reference": {"file": "train.parquet"},
                "label_delay": "12h",
                "routing": "random",
                "windows": ["1h", "3h"],
                "owner": "demo",
            }
        },
        "servers": {name: {"health_url": health_url(name)} for name in SERVERS},
        "policies": [
            {"name": "inputs", "watch": "drift", "window": "1h"},
            {"name": "one-bad-server", "watch": "server_outlier", "window": "1h"},
            {
                "name": "worse-version",
                "watch": "accuracy_drop",
                "window": "3h",
                "margin": 0.01,
                "severity": "page",
                "notify": ["ci"],
                "action": "put-back",
            },
        ],
        "notifiers": {
            "ci": {"kind": "webhook", "url": ci_url, "secret_file": SECRET_FILE, "allow_networks": ["127.0.0.0/8"]}
        },
        "actions": {
            "put-back": {"kind": "rollback", "notifier": "ci", "dry_run": False, "effect_within": "2h", "settle": "10m"}
        },
    }
    text = yaml.safe_dump(sections, sort_keys=False)
    path = folder / "telltale.yaml"
    path.write_text(text, "utf-8")
    return loads(text, path)


def run_demo(*, seed: int, port: int, as_json: bool, exit_at_end: bool, folder: Path = FOLDER) -> int:
    """Play the story and print its time line, then serve the page until Ctrl-C. 0 when the story came to its end."""
    console = Console(stderr=as_json)
    ended = []

    def show(entry: Entry) -> None:
        ended.append(entry["event"])
        if as_json:
            print(json.dumps(entry), flush=True)  # noqa: T201 - the answer
        else:
            console.print(sentence(entry), highlight=False)

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    story = Story(seed, folder, show, port)
    with contextlib.closing(story):
        with Progress(*columns, console=console, transient=True, disable=as_json) as progress:
            console.print(f"Six servers ship their logs to {story.url}; the page is {story.url}/")
            task = progress.add_task("Demo time", total=1.0)
            for done in story.steps():
                progress.update(task, completed=done, description=f"Demo time {story.clock.at:%a %H:%M}")
        if LAST_EVENT not in ended:
            console.print("[red]The story did not come to its end[/]")
            return 1
        if not exit_at_end:
            console.print(f"The story is over. The page stays at {story.url}/ until Ctrl-C")
            _wait_for_interrupt()
    return 0


def sentence(entry: Entry) -> str:
    """A time line entry for people.

    >>> sentence({"at": "2026-01-05T06:10:00Z", "event": "drift_found", "model": "m", "features": ["a", "b"]})
    '[dim]06:10[/]  [bold]drift found[/]  features a, b'
    """
    words = []
    for name in ("server", "version", "baseline_version", "features", "value", "reason"):
        value = entry.get(name)
        if value in (None, "", []):
            continue
        shown = ", ".join(value) if isinstance(value, list) else f"{value:.3f}" if isinstance(value, float) else value
        words.append(f"{name.replace('_', ' ')} {escape(str(shown))}")
    return f"[dim]{entry['at'][11:16]}[/]  [bold]{entry['event'].replace('_', ' ')}[/]  {'; '.join(words)}".rstrip()


def _wait_for_interrupt() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sys.stdout.flush()
    stopped.wait()
