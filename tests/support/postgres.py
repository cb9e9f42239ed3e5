"""A real PostgreSQL on loopback: a temporary folder, a port of its own, and nothing kept safe from a power cut."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from processes import Process, free_port, unavailable
from sqlalchemy import URL, make_url

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
USER, PASSWORD = "telltale", "only-for-tests"
_names = itertools.count()


class Postgres:
    """A server, and databases on it for one test each."""

    def __init__(self, url: str, node: Node | None = None) -> None:
        self.url = make_url(url).set(drivername="postgresql")
        self._node = node

    @property
    def node(self) -> Node:
        """The process, where it is ours to restart."""
        if self._node is None:
            pytest.skip("the server in POSTGRES_URL is not ours to restart")
        return self._node

    @contextlib.contextmanager
    def database(self) -> Iterator[URL]:
        """A new and empty database."""
        name = f"t_{os.getpid()}_{next(_names)}"
        self.run(f"CREATE DATABASE {name}")
        try:
            yield self.url.set(database=name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        """One statement as the user that may do everything."""
        with psycopg.connect(shown(self.url), autocommit=True) as connection:
            connection.execute(statement.encode())


class Node:
    """The server's process. Its folder outlives it, so it can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._data = folder / "data"
        self._process: Process | None = None
        self._run = ["setpriv", "--pdeathsig", "INT"]  # it ends with the tests, however these end
        if os.geteuid() == 0:  # as root it refuses to run
            self._run += ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(folder, "postgres", "postgres")
        password_file = folder / "password"
        password_file.write_text(PASSWORD)
        access = [f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
        make = [str(PROGRAMS / "initdb"), f"--pgdata={self._data}", "--encoding=UTF8", "--no-sync"]
        subprocess.run([*self._run, *make, *access], check=True, capture_output=True, cwd=folder)

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "32MB",
            "timezone": "Asia/Tokyo",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [*self._run, str(PROGRAMS / "postgres"), "-D", str(self._data), *options]
        self._process = Process(command, self.folder / "server.log")
        self._process.wait_until(self._answers, "PostgreSQL")

    def stop(self) -> None:
        """Stop at once, whoever is connected."""
        if self._process is not None:
            self._process.send(signal.SIGINT)
            self._process.stop()

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"


def shown(url: URL) -> str:
    """A database URL as text, with all that is in it."""
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server in POSTGRES_URL, or one that is started for the tests of this process."""
    given = os.environ.get("POSTGRES_URL")
    if given:
        yield Postgres(given)
        return
    if not (PROGRAMS / "postgres").exists():
        unavailable(f"no PostgreSQL in {PROGRAMS}; install Debian's postgresql-15, or set POSTGRES_URL")
    # Not in the folder of pytest, which another user may not enter.
    with tempfile.TemporaryDirectory(prefix="telltale-postgres-") as folder:
        node = Node(Path(folder))
        try:
            node.start()
            yield Postgres(node.url, node)
        finally:
            node.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database for a ledger: a test that uses it runs once on each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield shown(url)
