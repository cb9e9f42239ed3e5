"""Elec2 in event time through a real broker into the ClickHouse server store, judged against PostgreSQL's claims."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from broker import Broker
from elec import (
    CHANGED,
    CHANGED_ROW,
    FEATURES,
    FILE,
    FIRST,
    HALF_HOUR,
    LABEL_DELAY,
    MISSING,
    MODEL,
    ROWS_A_WEEK,
    SERVERS,
    SPEC,
    answers_to,
    events,
    read_table,
)
from given import StillClock
from postgres import Postgres
from processes import wait_until
from sqlalchemy import URL

from alerts.ledger import Claim
from detectors.finding import step
from monitor.batches import Limits
from monitor.config import ClickHouseSpec, Config
from monitor.intake import run_intake
from monitor.measure import LEARNING
from monitor.service import Service
from monitor.sources.kafka import open_kafka
from monitor.usual import HISTORY
from monitor.windows import floor

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=MISSING)
WEEK = timedelta(weeks=1)
STEP = step(WEEK)
END_OF_CHANGE = floor(FIRST + HALF_HOUR * CHANGED_ROW, STEP) + STEP
"""Of the first scheduled week that holds the change."""
WINDOWS_BEFORE = 36
"""So many are judged before it, from twelve weeks on: enough to learn what is usual."""
JUDGED_UNTIL = END_OF_CHANGE - (WINDOWS_BEFORE + 1) * STEP
"""Where another judge has ended."""


def messages(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Events in the order of their times, each one sent at its own."""
    timed = [(datetime.fromisoformat(event["timestamp"]), event) for event in events(table, answers_to(table))]
    for at, event in sorted(timed, key=lambda pair: pair[0]):
        yield {
            "value": orjson.dumps(event),
            "key": event["prediction_id"].encode(),
            "timestamp_ms": int(at.timestamp() * 1000),
        }


def config_of(broker: Broker, topic: str, clickhouse: ClickHouseSpec, ledger: URL, folder: Path) -> Config:
    password = folder / "ledger.password"
    password.write_text(ledger.password or "")
    kafka = {"bootstrap_servers": [broker.bootstrap], "topics": [topic], "group": topic}
    return Config.model_validate(
        {
            "store": {
                "path": folder,
                "clickhouse": clickhouse.model_dump(),
                "ledger": f"postgresql://{ledger.username}@{ledger.host}:{ledger.port}/{ledger.database}",
                "ledger_password_file": password,
            },
            "sources": {"kafka": kafka},
            "models": {MODEL: SPEC},
        }
    )


def consume(service: Service, until: float) -> None:
    """Read Kafka until so many events are taken in, or all of them."""
    spec = service.config.sources.kafka
    assert spec is not None
    stopped = threading.Event()
    arguments = (lambda: open_kafka(spec), service, service.metrics, stopped, Limits(rows=5_000), service.clock.now)
    thread = threading.Thread(target=run_intake, args=arguments)
    thread.start()
    try:
        wait_until(lambda: accepted(service) >= until or caught_up(service), f"{until} events", 120)
    finally:
        stopped.set()
        thread.join()


def accepted(service: Service) -> float:
    return service.metrics.registry.get_sample_value("telltale_events_accepted_total") or 0.0


def caught_up(service: Service) -> bool:
    """Whether judges are told that all of the topic is taken in."""
    service.write_progress(service.clock.now())
    return service.store.query("progress")["complete_until"].to_list() == [service.clock.now()]


def test_streamed_in_event_time_it_is_all_there_and_the_change_is_found(
    broker: Broker,
    clickhouse_spec: ClickHouseSpec,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.1)
    table = read_table()
    topic = broker.topic(retention_ms="-1")
    broker.produce(topic, messages(table), batch_size=262_144)
    clock = StillClock(FIRST + HALF_HOUR * table.height + 2 * LABEL_DELAY)
    with postgres.database() as ledger:
        config = config_of(broker, topic, clickhouse_spec, ledger, tmp_path)
        stream_and_judge(config, clock, table)


def stream_and_judge(config: Config, clock: StillClock, table: pl.DataFrame) -> None:
    with Service(config, clock) as service:
        consume(service, table.height // 3)
    with Service(config, clock) as service:  # another process goes on where the first one stopped
        consume(service, math.inf)
        assert_every_row_is_there(service, table)
        leave_to_another_judge(service)
        service.judge_due(END_OF_CHANGE + timedelta(minutes=5))
        assert_every_count_is_right(service, table)
        assert_the_change_is_found(service)


def leave_to_another_judge(service: Service) -> None:
    """The windows of the first months, which are like those after them, are judged elsewhere."""
    now = service.clock.now()
    for kind in ("traffic", "labels"):
        name = f"{kind}:{int(WEEK.total_seconds())}s"
        theirs = Claim("production", MODEL, name, JUDGED_UNTIL - WEEK, JUDGED_UNTIL, "another judge")
        assert service.ledger.claim(theirs, now, WEEK)
        with service.ledger.writing() as book:
            assert book.finish(theirs, now)


def assert_every_row_is_there(service: Service, table: pl.DataFrame) -> None:
    stored = service.store.query("counts").to_dicts()[0]
    assert (stored["predictions"], stored["labels"], stored["dead_letters"]) == (table.height, table.height, 0)
    ids = service.store.select("SELECT DISTINCT prediction_id FROM predictions")["prediction_id"]
    assert set(ids) == {f"row-{i}" for i in range(table.height)}
    known = service.store.select("SELECT prediction_id, timestamp FROM labels FINAL ORDER BY timestamp LIMIT 1")
    assert known.to_dicts() == [{"prediction_id": "row-0", "timestamp": FIRST + LABEL_DELAY}]


def assert_every_count_is_right(service: Service, table: pl.DataFrame) -> None:
    """Each cell of each server's profiles, against counting the table itself."""
    model = service.registry.get("production", MODEL)
    layout = model.layout
    assert layout is not None
    last = FIRST + HALF_HOUR * table.height
    service.references.complete(model, FIRST, last)
    for number, server in enumerate(SERVERS):
        profiles = service.store.select(
            "SELECT sumMap(cells, counts) AS both, sum(n) AS n FROM profile_batches FINAL "
            "WHERE segment = '' AND server = {server:String}",
            server=server,
        )
        both = profiles["both"][0]
        found = np.zeros(layout.size, np.int64)
        cells, counts = both.values() if isinstance(both, dict) else both
        found[np.asarray(cells)] = np.asarray(counts)
        rows = table.filter(pl.int_range(pl.len()) % 3 == number)
        assert profiles["n"][0] == rows.height
        for name in FEATURES:
            expected = np.bincount(layout.by_name[name].cells(_column(rows, name)), minlength=_width(layout, name))
            assert found[layout.spans[name]].tolist() == expected.tolist()


def _column(rows: pl.DataFrame, name: str) -> Any:
    from detectors.layout import Kind
    from monitor.columns import frame_column

    return frame_column(rows[name], Kind.NUMERIC)


def _width(layout: Any, name: str) -> int:
    span = layout.spans[name]
    return int(span.stop - span.start)


def assert_the_change_is_found(service: Service) -> None:
    found = service.findings(MODEL, limit=100_000)
    drift = [f for f in found if f["detector"] == "drift" and not f.get("feature", "@").startswith("@")]
    drift = [f for f in drift if f["message"] != LEARNING]
    of_week = [f for f in drift if f["end"] == END_OF_CHANGE.isoformat()]
    assert {f["feature"] for f in of_week[:3]} == CHANGED
    assert all(f["p_value"] < 1e-6 for f in of_week if f["feature"] in CHANGED)
    assert {f["baseline"] for f in of_week} == {HISTORY}
    before = [f for f in drift if f["end"] < END_OF_CHANGE.isoformat() and f["feature"] in CHANGED]
    assert {f["p_value"] for f in before} == {1.0}
    assert {f["n"] for f in before} == {ROWS_A_WEEK}
    assert len(before) == 3 * WINDOWS_BEFORE
