"""A store and a service for any test."""

from __future__ import annotations

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "store") as store:
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
        config = Config.model_validate({"store": {"path": tmp_path / "data"}, **sections})
        services.append(Service(config, clock))
        return services[0]

    yield make
    for service in services:
        service.close()
