"""A ClickHouse server for tests: the one in CLICKHOUSE_URL, or one that is started for them."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Process, free_port, listens

from monitor.config import ClickHouseSpec, StoreSpec
from monitor.store import Store, migrate
from monitor.store.opening import open_store

SERVER = Path(__file__).with_name("clickhouse_server.py")
PASSWORD = "CLICKHOUSE_PASSWORD"  # noqa: S105 - the name of the variable
_names = itertools.count()


class ClickHouse:
    """A test server. Its folder outlives its process, so it can be started again, on the same port."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "default",
        password_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.url = f"clickhouse{'s' if certificate else ''}://{user}@127.0.0.1:{self.port}"
        options = {"--password-file": password_file, "--certificate": certificate, "--key": key}
        given = [str(part) for option in options.items() if option[1] for part in option]
        where = ["--port", str(self.port), "--folder", str(folder / "data"), "--user", user]
        self._command = [sys.executable, str(SERVER), *where, *given]
        self.start()

    def start(self) -> None:
        self.process = Process(self._command, self.folder / "server.log")
        self.process.wait_until(lambda: listens(self.port), "the ClickHouse test server")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()


@contextlib.contextmanager
def clickhouse_server(
    folder: Path,
    *,
    user: str = "default",
    password_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Iterator[ClickHouse]:
    """A server of the test's own, which it may kill."""
    server = ClickHouse(folder, user=user, password_file=password_file, certificate=certificate, key=key)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server, without a database. Its password is in CLICKHOUSE_PASSWORD."""
    given = os.environ.get("CLICKHOUSE_URL")
    if given:
        yield given.rstrip("/")
        return
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server.url


@pytest.fixture
def clickhouse_spec(clickhouse_url: str) -> Iterator[ClickHouseSpec]:
    """A database of the test's own, without tables."""
    password_env = PASSWORD if os.environ.get(PASSWORD) else None
    name = f"test_{os.getpid()}_{next(_names)}"
    with opened(ClickHouseSpec(url=clickhouse_url, password_env=password_env)) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield ClickHouseSpec(url=f"{clickhouse_url}/{name}", password_env=password_env)
        admin.execute(f"DROP DATABASE {name}")


@pytest.fixture
def server_store(clickhouse_spec: ClickHouseSpec) -> Iterator[Store]:
    """A store on a server, with its tables."""
    with opened(clickhouse_spec) as store:
        migrate(store)
        yield store


@pytest.fixture(params=["store", "server_store"], ids=["embedded", "server"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """Each kind of store in turn."""
    store: Store = request.getfixturevalue(request.param)
    return store


def opened(spec: ClickHouseSpec) -> contextlib.closing[Store]:
    """The store, for as long as the context lasts."""
    return contextlib.closing(open_store(StoreSpec(clickhouse=spec)))
