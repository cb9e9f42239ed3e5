"""Reading a real broker: formats, security, rebalances, restarts, and places that are not there any more."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from broker import PASSWORD, USER, Broker
from fake_log import Shelf
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from processes import wait_until

from monitor.batches import Limits
from monitor.config import KafkaSource
from monitor.intake import run_intake
from monitor.metrics import Metrics
from monitor.sources import Source, SourceError
from monitor.sources.kafka import SETTINGS, Kafka, open_kafka

pytestmark = [
    # kafka-python leaves sockets of failed connection attempts to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("_collected"),
]
SMALL = Limits(rows=50, size=1_000_000, seconds=0.2)


class Safe(Shelf):
    """A shelf that several threads may use, and that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take_batch(self, lines: Any, origin: Any) -> None:
        time.sleep(0.002)
        with self._lock:
            super().take_batch(lines, origin)


@pytest.fixture
def _collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("CRITICAL", "kafka")  # its records hold on to what should be collected
    yield
    gc.collect()


def spec(broker: Broker, topic: str, **more: Any) -> KafkaSource:
    return KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,), group=f"g-{topic}", **more)


@contextlib.contextmanager
def reading(open_source: Callable[[], Source], taker: Any, limits: Limits = SMALL) -> Iterator[Metrics]:
    metrics, stopped = Metrics(), threading.Event()
    thread = threading.Thread(target=run_intake, args=(open_source, taker, metrics, stopped, limits))
    thread.start()
    try:
        yield metrics
    finally:
        stopped.set()
        thread.join()


def numbered(first: int, last: int) -> list[dict[str, Any]]:
    return [{"value": b"%d" % n, "key": b"%d" % n} for n in range(first, last)]


def expected(last: int) -> Counter[bytes]:
    return Counter(b"%d" % n for n in range(last))


def has(shelf: Shelf, last: int) -> Callable[[], bool]:
    return lambda: len(shelf.rows) >= last


def test_every_form_of_message_is_taken_in_once(broker: Broker, make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    topic = broker.topic()
    events = [prediction(n, NOON) for n in range(10)]
    messages = [{"value": orjson.dumps(e), "key": e["prediction_id"].encode()} for e in events[:4]]
    messages += [
        {"value": ndjson(events[4:7]), "headers": [("content-type", b"application/x-ndjson")]},
        {"value": ndjson(events[7:9])},
        {"value": orjson.dumps(events[9:], option=orjson.OPT_INDENT_2)},
        {"value": None, "key": b"a tombstone"},
        {"value": b"garbage", "partition": 2},
    ]
    broker.produce(topic, messages)
    service = make_service(sources={"kafka": spec(broker, topic).model_dump()})
    with reading(lambda: open_kafka(spec(broker, topic)), service):
        wait_until(lambda: _counts(service) == (10, 1), "10 predictions and a dead letter")
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0]
    assert profiled == 10
    letter = service.store.select("SELECT source, batch, reason FROM dead_letters").to_dicts()[0]
    assert letter["source"].startswith(f"kafka/{topic}/2/")
    assert letter["reason"] == "not_json"


def _counts(service: Any) -> tuple[int, int]:
    row = service.status()["rows"]
    return row["predictions"], row["dead_letters"]


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
def test_messages_may_be_compressed(broker: Broker, compression: str) -> None:
    topic, shelf = broker.topic(partitions=1), Safe()
    broker.produce(topic, numbered(0, 50), compression_type=compression)
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 50), "50 rows")
    assert Counter(shelf.rows.values()) == expected(50)


def test_reading_goes_on_where_the_last_reader_stopped(broker: Broker) -> None:
    topic, shelf = broker.topic(), Safe()
    broker.produce(topic, numbered(0, 300))
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 300), "300 rows")
    broker.produce(topic, numbered(300, 400))
    with reading(lambda: Kafka(spec(broker, topic)), shelf) as metrics:
        wait_until(has(shelf, 400), "400 rows")
        lag = [("telltale_kafka_lag_messages", {"topic": topic, "partition": str(p)}) for p in range(4)]
        wait_until(lambda: all(metrics.registry.get_sample_value(*x) == 0 for x in lag), "no lag")
    assert Counter(shelf.rows.values()) == expected(400)


def test_passwords_and_certificates(broker: Broker, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    node = broker.node
    topic, shelf = broker.topic(), Safe()
    broker.produce(topic, numbered(0, 10))
    (tmp_path / "password").write_text(PASSWORD + "\n")
    secure = {
        "bootstrap_servers": (f"127.0.0.1:{node.secure_port}",),
        "topics": (topic,),
        "group": f"g-{topic}",
        "protocol": "SASL_SSL",
        "mechanism": "PLAIN",
        "username": USER,
        "password_file": tmp_path / "password",
        "ca_file": node.ca_file,
    }
    with reading(lambda: open_kafka(KafkaSource.model_validate(secure)), shelf):
        wait_until(has(shelf, 10), "10 rows over TLS")
    with pytest.raises(SourceError) as refused:
        Kafka(KafkaSource.model_validate(secure), "a-wrong-one", bootstrap_seconds=2)
    assert "a-wrong-one" not in str(refused.value) + caplog.text
    (tmp_path / "password").unlink()
    with pytest.raises(SourceError, match="the secret cannot be read"):
        open_kafka(KafkaSource.model_validate(secure))


def test_readers_that_come_and_go_take_every_message_in_once(broker: Broker) -> None:
    topic, shelf = broker.topic(), Safe()
    done = threading.Event()

    def produce() -> None:
        for first in range(0, 4000, 200):
            broker.produce(topic, numbered(first, first + 200))
        done.set()

    producer = threading.Thread(target=produce)
    producer.start()
    with reading(lambda: Kafka(spec(broker, topic)), shelf) as lasting:
        while not done.is_set():
            with reading(lambda: Kafka(spec(broker, topic)), shelf):
                time.sleep(0.7)
        producer.join()
        wait_until(has(shelf, 4000), "4,000 rows")
        assert (lasting.registry.get_sample_value("telltale_kafka_rebalances_total") or 0) > 3
    assert Counter(shelf.rows.values()) == expected(4000)
    assert sum(shelf.profiles.values()) == 4000


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(broker: Broker) -> None:
    topic, shelf = broker.topic(), Safe()
    broker.produce(topic, numbered(0, 500))
    with reading(lambda: Kafka(spec(broker, topic)), shelf, Limits(rows=20, size=1_000_000, seconds=0.1)):
        wait_until(lambda: len(shelf.rows) > 50, "some rows")
        broker.node.kill()
        broker.node.start()
        broker.produce(topic, numbered(500, 800))
        wait_until(has(shelf, 800), "800 rows")
    assert Counter(shelf.rows.values()) == expected(800)


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(broker: Broker) -> None:
    topic, shelf = broker.topic(partitions=1), Safe()
    broker.produce(topic, numbered(0, 100))
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 100), "100 rows")
    broker.delete(topic)
    broker.create(topic, 1)
    broker.produce(topic, numbered(100, 300))
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 300), "300 rows")
    assert Counter(shelf.rows.values()) == expected(300)


def test_messages_that_were_deleted_unread_are_counted(broker: Broker) -> None:
    from kafka import TopicPartition

    topic, shelf = broker.topic(partitions=1), Safe()
    broker.produce(topic, numbered(0, 50))
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 50), "50 rows")
    broker.produce(topic, numbered(50, 100))
    broker.delete_before({TopicPartition(topic, 0): 80})
    with reading(lambda: Kafka(spec(broker, topic)), shelf) as metrics:
        wait_until(has(shelf, 70), "70 rows")
        assert metrics.registry.get_sample_value("telltale_kafka_lost_offsets_total") == 30


def test_a_transaction_that_was_aborted_is_not_taken_in(broker: Broker) -> None:
    from kafka import KafkaProducer

    topic, shelf = broker.topic(partitions=1), Safe()
    with contextlib.closing(KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic)) as producer:
        producer.init_transactions()
        for number, commit in enumerate([True, False, True]):
            producer.begin_transaction()
            producer.send(topic, b"%d" % number)
            producer.flush()
            if commit:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 2), "2 rows")
    assert Counter(shelf.rows.values()) == Counter([b"0", b"2"])
    for _ in range(2):  # also for a reader that finds nothing but the mark of the transaction
        shelf.progress = ()
        with reading(lambda: Kafka(spec(broker, topic)), shelf):
            wait_until(lambda: _is_complete(shelf), "nothing to wait for")


def _is_complete(shelf: Shelf) -> bool:
    just_now = datetime.now(UTC) - timedelta(seconds=60)
    return bool(shelf.progress) and all(p.complete_until > just_now for p in shelf.progress)


def test_a_topic_that_is_not_there_is_named_and_not_made(broker: Broker) -> None:
    with contextlib.closing(Kafka(spec(broker, "no-such-topic"))) as source:
        for _ in range(3):
            source.poll(0.5)
        with pytest.raises(SourceError, match="has no topic no-such-topic; make it"):
            source.ends([])
    assert "no-such-topic" not in broker.topics()


def test_a_rebalance_that_takes_longer_than_a_poll_is_finished(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.STALL_SECONDS", 1e9)  # nothing else may come to its help
    topic, shelf = broker.topic(partitions=1), Safe()
    broker.produce(topic, numbered(0, 100))
    source = Kafka(spec(broker, topic))
    coordinator = source._consumer._coordinator  # noqa: SLF001 - the fault is in there
    assign = coordinator._perform_assignment  # noqa: SLF001 - the fault is in there

    def slowly(*arguments: Any) -> Any:
        assigned = assign(*arguments)
        time.sleep(0.5)  # a machine that has other things to do; the poll that waits for it ends now
        return assigned

    with reading(lambda: source, shelf):
        wait_until(has(shelf, 100), "100 rows")
        monkeypatch.setattr(coordinator, "_perform_assignment", slowly)
        broker.add_partitions(topic, 4)
        source._consumer._cluster.request_update()  # noqa: SLF001 - it would notice in some minutes
        broker.produce(topic, [{**m, "partition": n % 4} for n, m in enumerate(numbered(100, 200))])
        wait_until(has(shelf, 200), "200 rows")
    assert Counter(shelf.rows.values()) == expected(200)


def test_what_was_fetched_of_a_partition_and_held_back_is_read_later(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.sources.kafka.SETTINGS", {**SETTINGS, "max_poll_records": 30})
    monkeypatch.setattr("monitor.intake.STALL_SECONDS", 1e9)
    topic, shelf = broker.topic(partitions=2), Safe()
    broker.produce(topic, [{"value": b"%d" % n, "partition": n % 2} for n in range(1_000)])
    with reading(lambda: Kafka(spec(broker, topic)), shelf, Limits(rows=20, seconds=0.2)):
        wait_until(has(shelf, 1_000), "1000 rows")
    assert Counter(shelf.rows.values()) == expected(1_000)


def test_a_time_that_no_clock_shows_stops_nothing(broker: Broker) -> None:
    topic, shelf = broker.topic(message_timestamp_after_max_ms="9223372036854775807"), Safe()
    broker.produce(topic, [{"value": b"0", "timestamp_ms": 2**60}, {"value": b"1"}])
    with reading(lambda: Kafka(spec(broker, topic)), shelf):
        wait_until(has(shelf, 2), "2 rows")


def test_a_broker_that_is_not_there_is_named() -> None:
    nobody = KafkaSource(bootstrap_servers=("127.0.0.1:1",), topics=("t",))
    threads = threading.active_count()
    with pytest.raises(SourceError, match=r"Kafka at 127\.0\.0\.1:1 cannot be reached"):
        Kafka(nobody, bootstrap_seconds=0.5)
    wait_until(lambda: threading.active_count() == threads, "the library's thread to end", 5)
