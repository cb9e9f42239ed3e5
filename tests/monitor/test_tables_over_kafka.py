"""Tables as messages: told from lines, counted by their rows, and taken in once whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from arrow import stream, table_of
from broker import Broker
from fake_log import FakeLog, Later
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from processes import wait_until

from monitor.batches import Buffer, Limits
from monitor.config import KafkaSource
from monitor.intake import Intake, run_intake
from monitor.metrics import Metrics
from monitor.service import Service
from monitor.sources import Message, Place
from monitor.sources.kafka import RangeReader, open_kafka
from monitor.tables import TableLines

ARROW = ("content-type", b"application/vnd.apache.arrow.stream")
PLACE = Place("t", 0)


def table(first: int, last: int, **options: Any) -> bytes:
    return stream(table_of([prediction(n, NOON) for n in range(first, last)]), **options)


def held(service: Service) -> tuple[int, int, int]:
    rows = service.status()["rows"]
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0]
    return rows["predictions"], profiled, rows["dead_letters"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # kafka-python leaves sockets to the collector
def test_tables_and_lines_of_a_topic_are_all_taken_in_once(
    broker: Broker, make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    topic = broker.topic(partitions=1)
    spec = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,), group=f"g-{topic}")
    service = make_service(sources={"kafka": spec.model_dump()})
    good = table(0, 40)
    broker.produce(
        topic,
        [
            {"value": good, "headers": [ARROW]},
            {"value": table(40, 90, rows=20, compression="zstd")},
            {"value": orjson.dumps(prediction(90, NOON))},
            {"value": good[:-300]},
            {"value": good.replace(b"pod-1", b"pod-\xff")},
            {"value": b"no table", "headers": [ARROW]},
            {"value": None, "key": b"a tombstone", "headers": [ARROW]},
            {"value": ndjson([prediction(n, NOON) for n in range(91, 95)])},
            {"value": table(95, 100), "headers": [("content-type", b"application/octet-stream")]},
            {"value": table(0, 40).replace(b"p39", b"p\x0039"), "headers": [("content-type", b"application/x-ndjson")]},
        ],
    )
    stopped = threading.Event()
    small = Limits(rows=60, size=1_000_000, seconds=0.2)
    arguments = (lambda: open_kafka(spec), service, Metrics(), stopped, small)
    thread = threading.Thread(target=run_intake, args=arguments)
    thread.start()
    try:
        wait_until(lambda: held(service)[0] == 100, "100 predictions")
        wait_until(lambda: service.store.select("SELECT max(last) AS n FROM batches FINAL")["n"][0] == 9, "all offsets")
    finally:
        stopped.set()
        thread.join()
    letters = service.store.select("SELECT batch, row, reason FROM dead_letters FINAL ORDER BY batch, row").rows()
    assert [reason for _, _, reason in letters].count("bad_table") == 3
    assert held(service)[:2] == (100, 100)
    identity = str(service.store.select("SELECT any(source) AS s FROM batches")["s"][0]).split("/")[3]
    with RangeReader(spec) as reader:
        again = list(reader.read(Place(topic, 0), identity, 0, 9))
    assert [len(m.lines) for m in again[:6]] == [40, 50, 1, 1, 40, 1]


class Reader:
    """A member of the group that takes in what it reads when it is told to."""

    def __init__(self, log: FakeLog, taker: Any) -> None:
        self.worker = Later()
        self.source = log.join()
        limits = Limits(rows=100, size=10_000_000, seconds=0.0)
        self.intake = Intake(self.source, taker, Metrics(), limits, self.worker, lambda: 0.0, lambda: NOON)

    def drain(self) -> None:
        for _ in range(40):
            self.intake.step()
            self.worker.run()


class Fragile:
    """A service whose process ends in the middle of a batch."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self._service = service
        self._insert = service.store.insert
        monkeypatch.setattr(service.store, "insert", self.insert)
        self.ends_at: Sequence[str] = ()

    def insert(self, name: str, rows: Any) -> None:
        if name in self.ends_at:
            raise KeyboardInterrupt
        self._insert(name, rows)


def mixed_log() -> FakeLog:
    log = FakeLog(1)
    at = int(NOON.timestamp() * 1000)
    values: list[Sequence[bytes]] = [
        TableLines(table(0, 70)),
        [orjson.dumps(prediction(70, NOON)), b"garbage"],
        TableLines(table(0, 30)[:-8]),
        TableLines(table(71, 140)),
        TableLines(table(0, 5).replace(b"pod-1", b"pod-\xff")),
        TableLines(table(140, 150)),
    ]
    log.messages[PLACE] = [Message(n, at, lines, 100) for n, lines in enumerate(values)]
    return log


@pytest.mark.parametrize("table_name", ["predictions", "profile_batches", "batches"])
def test_a_batch_with_tables_that_was_cut_short_is_taken_in_again_as_the_same(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch, table_name: str
) -> None:
    clock.at = NOON
    service = make_service()
    fragile = Fragile(service, monkeypatch)
    log = mixed_log()
    first = Reader(log, service)
    for _ in range(3):
        first.intake.step()
    fragile.ends_at = (table_name,)
    with pytest.raises(KeyboardInterrupt):
        first.worker.run()
    log.leave(first.source)
    fragile.ends_at = ()
    Reader(log, service).drain()
    assert held(service) == (150, 150, 3)
    rows = service.store.select("SELECT batch, row, prediction_id FROM predictions FINAL ORDER BY toInt32(batch), row")
    assert len(rows.rows()) == 150
    assert {b for b, _, _ in rows.rows()} == {"0", "3"}
    log.marks.clear()  # the group has lost its place, and reads all of it again
    Reader(log, service).drain()
    assert held(service) == (150, 150, 3)


def test_a_table_counts_by_its_rows_towards_a_batch() -> None:
    buffer = Buffer(PLACE, 0)
    tables = [TableLines(table(0, 40)) for _ in range(4)]
    buffer.add([Message(n, 0, lines, lines.size) for n, lines in enumerate(tables)], now=0.0)
    batch = buffer.next_batch(Limits(rows=100, size=10**9, seconds=1e9), now=0.0)
    assert batch is not None
    assert (batch.first, batch.last, len(batch.lines), len(batch.arrivals)) == (0, 1, 80, 80)


def test_a_topic_of_broken_tables_is_stopped_at(make_service: ServiceMaker) -> None:
    from monitor.dead_letter_watch import TooManyDeadLettersError
    from monitor.ingest import Origin

    service = make_service()
    broken = TableLines(table(0, 1200).replace(b"pod-1", b"pod-\xff"))
    with pytest.raises(TooManyDeadLettersError, match="1200 lines in a row are no events"):
        service.take_batch(broken, Origin("kafka/t/0/log", "0", NOON, [NOON.timestamp()] * len(broken), 0))
    assert service.status()["rows"]["dead_letters"] == 0
