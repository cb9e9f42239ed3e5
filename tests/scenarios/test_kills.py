"""Readers of Kafka that are killed while one of them makes the layout: every event is there once, with its cells."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from broker import Broker
from clickhouse import opened
from processes import Process, wait_until

from monitor.config import ClickHouseSpec
from monitor.config_file import load
from monitor.service import Service
from monitor.store import Store
from monitor.windows import read_traffic

ROOT = Path(__file__).parents[2]
EVENTS = 24_000
A_MESSAGE = 3
KILLS = 3
BEGIN = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)


def messages(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Messages of three events each."""
    for start in range(first, last, A_MESSAGE):
        lines = [
            {
                "type": "prediction",
                "model": "m",
                "version": "1",
                "server": f"pod-{n % 5}",
                "prediction_id": f"p{n}",
                "timestamp": (BEGIN + timedelta(milliseconds=100 * n)).isoformat(),
                "features": {"x": float(n % 97), "plan": "abc"[n % 3]},
                "prediction": "yes",
            }
            for n in range(start, start + A_MESSAGE)
        ]
        headers = [("content-type", b"application/x-ndjson")]
        yield {"value": b"\n".join(map(orjson.dumps, lines)), "key": b"%d" % start, "headers": headers}


@contextmanager
def produced_meanwhile(broker: Broker, topic: str) -> Iterator[threading.Event]:
    """Events being sent a few at a time, as long as the context lasts or longer."""
    done = threading.Event()

    def produce() -> None:
        for first in range(0, EVENTS, EVENTS // 40):
            broker.produce(topic, messages(first, first + EVENTS // 40))
            time.sleep(0.4)
        done.set()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield done
    finally:
        thread.join()


def test_readers_that_are_killed_while_the_layout_is_made_lose_no_cell(
    broker: Broker, clickhouse_spec: ClickHouseSpec, tmp_path: Path
) -> None:
    topic = broker.topic()
    config = {
        "store": {"path": "data", "clickhouse": {"url": clickhouse_spec.url}},
        "sources": {"kafka": {"bootstrap_servers": [broker.bootstrap], "topics": [topic], "group": topic}},
        "models": {"m": {"features": {"x": "numeric", "plan": "categorical"}}},
    }
    (tmp_path / "telltale.yaml").write_text(yaml.safe_dump(config), "utf-8")
    chance = random.Random(1)
    readers = [reader(tmp_path, 0), reader(tmp_path, 1)]
    try:
        with produced_meanwhile(broker, topic) as done:
            for _ in range(KILLS):
                time.sleep(chance.uniform(1, 2.5))
                victim = chance.randrange(2)
                readers[victim].kill()
                readers[victim] = reader(tmp_path, victim)
            done.wait()
        with opened(clickhouse_spec) as store:
            wait_until(lambda: events_in(store) == EVENTS, f"{EVENTS} events", 90, pause=0.5)
            time.sleep(2)  # anything doubled would come now
            assert_exact(store)
        assert_every_event_has_its_cells(tmp_path / "telltale.yaml")
        log = "".join(r.output() for r in readers)
        assert {r.stop() for r in readers} == {0}, log
    except TimeoutError:
        pytest.fail("\n".join(r.output()[-4000:] for r in readers))
    finally:
        for each in readers:
            each.kill()


def reader(folder: Path, number: int) -> Process:
    """``telltale run --only ingest`` in a process of its own."""
    command = [sys.executable, "-m", "monitor.cli", "run", "--only", "ingest", "--port", "0"]
    environment = {"PYTHONPATH": str(ROOT), "TELLTALE_CONFIG": str(folder / "telltale.yaml")}
    return Process(command, folder / f"reader-{number}.log", environment)


def events_in(store: Store) -> int:
    return int(store.query("counts")["predictions"][0])


def assert_exact(store: Store) -> None:
    rows = store.select("SELECT count() AS n, uniqExact(prediction_id) AS ids FROM predictions FINAL")
    assert rows.to_dicts() == [{"n": EVENTS, "ids": EVENTS}]
    assert store.select("SELECT count() AS n FROM features FINAL")["n"].to_list() == [EVENTS]
    profiled = store.select(
        "SELECT server, sum(n) AS n FROM profile_batches FINAL WHERE segment = '' GROUP BY server ORDER BY server"
    )
    assert profiled.to_dicts() == [{"server": f"pod-{i}", "n": EVENTS // 5} for i in range(5)]
    assert store.query("counts")["dead_letters"].to_list() == [0]


def assert_every_event_has_its_cells(config: Path) -> None:
    """Also those that one reader took in before it knew of the layout that the other had made."""
    with Service(load(config)) as service:
        model = service.registry.get("production", "m")
        assert model.layout is not None
        end = BEGIN + timedelta(hours=1)
        service.evaluate("m", end)
        traffic = read_traffic(service.store, model, BEGIN, end)
    assert (traffic.rows(), traffic.unplaced()) == (EVENTS, 0)
    assert traffic.counts()[model.layout.spans["x"]].sum() == EVENTS
    levels = traffic.counts()[model.layout.spans["plan"]]
    assert sorted(levels[levels > 0].tolist()) == [EVENTS // 3] * 3
