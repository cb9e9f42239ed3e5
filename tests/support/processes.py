"""Real servers for tests: started on loopback, waited for, and ended by the id they were started with."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

START_SECONDS = 120.0


def unavailable(reason: str) -> NoReturn:
    """Skip the test for want of a server; where everything should be installed (CI) that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS, pause: float = 0.05) -> None:
    """Poll until something holds. Raises TimeoutError that says what did not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


class Process:
    """A child process with a group of its own and its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready. Raises RuntimeError with the end of its output when it dies first."""

        def ready_or_dead() -> bool:
            if self._child.poll() is not None:
                raise RuntimeError(f"{what}: ended with {self._child.returncode}: {self.output()[-2000:]}")
            return bool(ready())

        wait_until(ready_or_dead, what, seconds)

    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text("utf-8", "replace")

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self._child.wait()

    def stop(self, seconds: float = 15) -> int:
        """Ask it to end, insist after some time, and give its exit code."""
        self.send(signal.SIGTERM)
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._child.returncode


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], object],
    environment: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[Process]:
    """A process that is ready, for as long as the context lasts."""
    process = Process(command, log, environment)
    try:
        process.wait_until(ready, command[0], seconds)
        yield process
    finally:
        process.stop()
