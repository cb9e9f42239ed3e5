"""One setting makes every table and view one of a whole cluster. None is at hand, so the statements are looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from given import NOON, StillClock, ndjson, prediction

from monitor.config import ClickHouseSpec, Config
from monitor.service import Service
from monitor.store import migrate
from monitor.store.cluster import replicated
from monitor.store.embedded import EmbeddedStore
from monitor.store.server import ServerStore


def test_every_statement_that_makes_something_names_the_cluster(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    execute = EmbeddedStore.execute

    def noted(self: EmbeddedStore, sql: str) -> None:
        statements.append(sql)
        execute(self, sql)

    monkeypatch.setattr(EmbeddedStore, "execute", noted)
    clock.at = NOON
    with Service(Config.model_validate({"store": {"path": tmp_path / "new"}}), clock) as service:
        service.take(ndjson([prediction(1, NOON)]), "http")
    made = [sql for sql in statements if re.search(r"\b(CREATE|ALTER|RENAME|DROP)\b", sql)]
    assert len(made) > 20
    assert {"VIEW" in sql for sql in made} == {True, False}
    for sql in made:
        cluster_wide = replicated(sql, "all `hosts`")
        assert cluster_wide.count(" ON CLUSTER `all \\`hosts\\``") == 1, sql
        engines = re.findall(r"\bENGINE = (\w+)", cluster_wide)
        assert all(engine.startswith("Replicated") and engine.endswith("MergeTree") for engine in engines), sql
        assert ("CREATE TABLE" in sql) == (len(engines) == 1), sql
        assert cluster_wide.replace(" ON CLUSTER `all \\`hosts\\``", "").replace("Replicated", "") == sql


@pytest.mark.parametrize("sql", ["SELECT 1", "DELETE FROM t WHERE a = 'ENGINE'", "INSERT INTO t SELECT 1"])
def test_other_statements_stay_as_they_are(sql: str) -> None:
    assert replicated(sql, "c") == sql


def test_the_setting_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {
        "store": {"clickhouse": {"url": "clickhouse://127.0.0.1:1", "engine": {"cluster": "c"}}}
    }
    spec = Config.model_validate(settings).store.clickhouse
    assert isinstance(spec, ClickHouseSpec)
    sent: list[str] = []

    class Client:
        def __init__(self, **_: object) -> None: ...

        def execute(self, sql: str) -> None:
            sent.append(sql)
            raise EOFError

    monkeypatch.setattr("clickhouse_driver.Client", Client)
    with pytest.raises(Exception, match="broke"):
        migrate(ServerStore(spec, ""))
    assert sent[0].startswith("CREATE TABLE IF NOT EXISTS migrations ON CLUSTER `c` (")
