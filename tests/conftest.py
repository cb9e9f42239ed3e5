"""A store and a service for any test."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import broker  # noqa: F401 - a fixture
from clickhouse import any_store, clickhouse_spec, clickhouse_url, server_store  # noqa: F401 - fixtures
from faulty import gateway, make_logger, telltale  # noqa: F401 - fixtures
from given import ServiceMaker, StillClock
from postgres import ledger_url, postgres  # noqa: F401 - fixtures

from monitor.config import Config
from monitor.service import Service
from monitor.store import migrate
from monitor.store.embedded import EmbeddedStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: what is left when one process has nothing to do any more is short."""
    items.sort(key=lambda item: item.path.parent.name != "scenarios")


@functools.cache
def empty_data() -> Path:
    """A data folder with all tables and nothing in them. To copy it takes less than to make the tables."""
    folder = tempfile.TemporaryDirectory(prefix="telltale-tests-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "data"
    Service(Config.model_validate({"store": {"path": path}}), StillClock()).close()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(shutil.copytree(empty_data(), tmp_path / "store", symlinks=True)) as store:
        migrate(store)
        yield store


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def make_service(tmp_path: Path, clock: StillClock) -> Iterator[ServiceMaker]:
    """Makes a service on the test's folder; the same folder again after closing the last one."""
    services: list[Service] = []

    def make(**sections: Any) -> Service:
        for earlier in services:
            earlier.close()
        services.clear()
        path = tmp_path / "data"
        if not path.exists():
            shutil.copytree(empty_data(), path, symlinks=True)
        config = Config.model_validate({"store": {"path": path}, **sections})
        services.append(Service(config, clock))
        return services[0]

    yield make
    for service in services:
        service.close()
