"""What pods log arrives as it was meant, and nothing the pod does wrong comes back to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faulty import Gateway, Telltale
from processes import wait_until

from monitor.decode import decode
from telltale_client import Logger
from telltale_client.batches import Batch, Receipt, UnavailableError
from telltale_client.over_http import HttpTransport

MakeLogger = Callable[..., Logger]


class Collecting:
    """A transport that keeps what it is given; it can be held up."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.lines: list[bytes] = []

    def send(self, batch: Batch) -> Receipt:
        self.open.wait(30)
        self.lines += batch.lines
        return Receipt(len(batch.lines))

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def events(self) -> list[dict[str, Any]]:
        decoded = decode(self.lines, datetime.now(UTC).timestamp())
        assert decoded.rejects == []
        return [e for events in decoded.predictions.values() for e in events] + decoded.labels + decoded.health


def test_predictions_and_labels_arrive(telltale: Telltale, make_logger: MakeLogger) -> None:
    logger = make_logger(url=telltale.url)
    first = logger.predict(
        {"x": 1.5, "c": "a"}, {"score": 0.8, "label": "yes"}, latency_ms=3.0, entity_id="e", trace_id="t"
    )
    logger.predict({"x": 2.5, "c": "b"}, "no", prediction_id=7, error="timeout", segments={"plan": "vip"})
    logger.label(first, "no")
    assert logger.flush()
    rows = telltale.select("SELECT * FROM predictions ORDER BY score")
    assert [(r["prediction_id"], r["label"], r["failed"]) for r in rows if r["prediction_id"] == first] == [
        (first, "yes", False)
    ]
    assert [(r["entity_id"], r["trace_id"], r["latency_ms"]) for r in rows if r["prediction_id"] == first] == [
        ("e", "t", 3.0)
    ]
    assert [(r["failed"], r["error"]) for r in rows if r["prediction_id"] == "7"] == [(True, "timeout")]
    assert {(r["model"], r["version"], r["server"], r["role"]) for r in rows} == {("m", "1", "pod-1", "live")}
    assert [(r["prediction_id"], r["label"]) for r in telltale.select("SELECT * FROM labels")] == [(first, "no")]
    stats = logger.stats()
    assert (stats.delivered, stats.waiting, stats.dropped, stats.rejected) == (3, 0, 0, 0)


def test_features_are_those_of_the_call_whatever_the_pod_does_with_them_next(make_logger: MakeLogger) -> None:
    transport = Collecting()
    logger, features, answer = make_logger(transport=transport), {"x": 1.0}, {"label": "yes"}
    logger.predict(features, answer)
    features["x"], answer["label"] = 2.0, "no"
    logger.flush()
    assert [(e["features"], e["prediction"]) for e in transport.events()] == [({"x": 1.0}, {"label": "yes"})]


def test_a_timed_block_is_logged_with_its_time(make_logger: MakeLogger) -> None:
    transport = Collecting()
    logger = make_logger(transport=transport)
    with logger.timed({"x": 1.0}, entity_id="e") as call:
        call.prediction = 0.5
    logger.flush()
    (event,) = transport.events()
    assert (event["prediction_id"], event["prediction"], event["entity_id"]) == (call.prediction_id, 0.5, "e")
    assert 0 < event["latency_ms"] < 10_000


def test_a_timed_block_is_logged_with_the_features_it_began_with(make_logger: MakeLogger) -> None:
    transport = Collecting()
    logger, features = make_logger(transport=transport), {"x": 1.0}
    with logger.timed(features) as call:
        features["x"], features["scaled"] = 99.0, 0.1
        call.prediction = 0.5
    logger.flush()
    assert [e["features"] for e in transport.events()] == [{"x": 1.0}]


def test_an_error_that_cannot_say_what_it_is_does_not_come_back_to_the_pod(make_logger: MakeLogger) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Id:
        def __str__(self) -> str:
            raise SilentError

    def fails() -> None:
        raise SilentError

    class Refusing(Collecting):
        def send(self, batch: Batch) -> Receipt:  # noqa: ARG002 - as the protocol has it
            raise SilentError

    logger = make_logger(transport=Refusing())
    assert logger.predict({"x": 1.0}, prediction_id=Id())
    logger.label(Id(), "yes")
    assert logger.guarded(fails) is None
    assert (logger.stats().failed, logger.stats().last_error) == (3, "SilentError")
    logger.predict({"x": 1.0})
    assert logger.flush()
    assert (logger.stats().dropped, logger.stats().last_error) == (1, "1 events were refused: SilentError")


def test_a_value_that_panics_costs_its_own_event_only(make_logger: MakeLogger) -> None:
    class Panic(BaseException):
        pass

    class Value:
        def tolist(self) -> Any:
            raise Panic("in a library")

    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise Panic("while it is encoded")

    transport = Collecting()
    logger = make_logger(transport=transport)
    values = [1.0, Value(), 2.0, Odd(b=1), 3.0]
    for value in values:
        logger.predict({"x": value})
    assert logger.flush()
    logger.predict({"x": 4.0})
    assert logger.flush()
    found = [e["features"]["x"] for e in transport.events() if e["type"] == "prediction"]
    assert found == [1.0, 2.0, 3.0, 4.0]
    stats = logger.stats()
    assert (stats.delivered, stats.dropped, stats.waiting) == (4, 2, 0)
    assert "Panic" in stats.last_error


def test_logging_that_fails_costs_no_event(make_logger: MakeLogger) -> None:
    class Fails(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(record.getMessage())

    class Sometimes(Collecting):
        def send(self, batch: Batch) -> Receipt:
            if not trouble:
                return super().send(batch)
            raise trouble.pop()

    trouble: list[Exception] = [UnavailableError("not now"), UnavailableError("not now", left=None)]
    handler = Fails()
    logging.getLogger("telltale_client").addHandler(handler)
    try:
        logger = make_logger(transport=Sometimes(), capacity=3)
        for _ in range(5):
            logger.predict({"x": 1.0})
        assert logger.flush()
        assert logger.stats().retries == 2
        assert logger.stats().delivered + logger.stats().dropped == 5
        assert logger.stats().delivered >= 3
    finally:
        logging.getLogger("telltale_client").removeHandler(handler)


def test_a_block_that_raises_is_logged_as_an_error_and_the_exception_goes_on(make_logger: MakeLogger) -> None:
    transport = Collecting()
    logger = make_logger(transport=transport)
    with pytest.raises(ValueError, match="no such region"), logger.timed({"x": 1.0}):
        raise ValueError("no such region")
    with pytest.raises(KeyboardInterrupt), logger.timed({"x": 1.0}):
        raise KeyboardInterrupt
    logger.flush()
    assert [(e["status"], e["error"]) for e in transport.events()] == [("error", "ValueError: no such region")]


def test_nothing_that_a_pod_hands_over_raises(make_logger: MakeLogger) -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __str__(self) -> str:
            raise RuntimeError("str")

    transport = Collecting()
    logger = make_logger(transport=transport)
    hostile: Any = Hostile()
    ids = [
        logger.predict([1, 2], "yes"),
        logger.predict(hostile, "yes"),
        logger.predict({"x": 1.0}, hostile, latency_ms=hostile, segments=hostile),
        logger.predict({"x": 1.0}, prediction_id=hostile),
        logger.predict({"x": 1.0}, prediction_id=""),
        logger.predict({"x": 1.0}, prediction_id="\ud800"),
    ]
    logger.label(hostile, hostile)
    with logger.timed(hostile, prediction_id=hostile) as call:
        call.prediction = "yes"
    logger.flush()
    assert all(ids)
    assert logger.stats().failed >= 5
    shipped = [b'"prediction":"yes"' in line for line in transport.lines]
    assert shipped.count(True) == 3  # a row whose features cannot be read is still a row


def test_when_the_queue_is_full_events_are_dropped_counted_and_reported(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger
) -> None:
    gateway.faults.extend(["slow"])
    logger = make_logger(url=gateway.url, capacity=20)
    logger.predict({"x": 0.0}, "yes")
    wait_until(lambda: gateway.keys, "the first batch to be under way", 10)
    for n in range(50):
        logger.predict({"x": float(n)}, "yes")
    assert logger.stats().dropped == 30
    assert logger.flush()
    wait_until(lambda: telltale.rows("health"), "the report", 10)
    (report,) = telltale.select("SELECT * FROM health")
    told = dict(zip(report["resource_names"], report["resource_values"], strict=True))
    assert (report["server"], report["model"], report["version"]) == ("pod-1", "m", "1")
    assert told == {"telltale_dropped": 30.0}
    assert telltale.rows() == 21
    assert telltale.rows("dead_letters") == 0


def test_drops_of_the_last_moment_are_reported_when_the_logger_closes() -> None:
    transport = Collecting()
    logger = Logger("m", "1", server="pod-1", transport=transport, capacity=1)
    transport.open.clear()
    logger.predict(prediction_id="under way")
    wait_until(lambda: logger._shipper and not logger._shipper._queue, "the first to be taken", 10)  # noqa: SLF001 - it is told nowhere else
    for _ in range(3):
        logger.predict()
    transport.open.set()
    logger.close()
    reports = [e["resources"] for e in transport.events() if e["type"] == "health"]
    assert reports == [{"telltale_dropped": 2.0}]


def test_after_closing_events_are_counted_as_dropped(make_logger: MakeLogger) -> None:
    logger = make_logger(transport=Collecting())
    logger.close()
    logger.predict({"x": 1.0})
    assert logger.stats().dropped == 1
    logger.close()


def test_without_a_url_nothing_is_sent_and_somebody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    logger = Logger("m", "1")
    assert logger.predict({"x": 1.0}, prediction_id="a") == "a"
    logger.label("a", 1)
    assert logger.flush()
    logger.close()
    assert logger.stats().last_error == "no URL of Telltale is set"
    assert "neither url nor TELLTALE_URL" in caplog.text


def test_settings_come_from_the_environment(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    for name, value in (("URL", gateway.url), ("KEY_FILE", str(file)), ("ENVIRONMENT", "staging")):
        monkeypatch.setenv(f"TELLTALE_{name}", value)
    monkeypatch.setenv("POD_NAME", "pod-9")
    logger = make_logger(server=None)
    logger.predict({"x": 1.0})
    assert logger.flush()
    file.write_text("second")
    logger.predict({"x": 1.0})
    assert logger.flush()
    assert telltale.select("SELECT DISTINCT server, environment FROM predictions") == [
        {"server": "pod-9", "environment": "staging"}
    ]
    assert gateway.authorizations == ["Bearer first", "Bearer second"]


def test_the_key_is_in_no_repr_and_no_message(make_logger: MakeLogger, caplog: pytest.LogCaptureFixture) -> None:
    logger = make_logger(url="http://127.0.0.1:1", key="hush\nhush")
    logger.predict({"x": 1.0})
    logger.flush(0.1)
    told = repr(logger) + str(vars(logger)) + caplog.text + str(logger.stats())
    assert "hush" not in told
    assert "the API key is not plain text" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": 0.0}, "sampling is 0.0; it should be at least 1e-06, at most 1"),
        ({"role": "canary"}, "role is 'canary'; use live or shadow"),
        ({"capacity": 0}, "capacity is 0; it should be at least 1"),
        ({"url": "telltale:8300"}, "should look like http://telltale:8300"),
        ({"url": "http://name:hush@telltale"}, "should look like http://telltale:8300"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_the_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Logger("m", "1", **settings)
    assert "hush" not in str(caught.value)


def test_a_shadow_says_so(telltale: Telltale, make_logger: MakeLogger) -> None:
    logger = make_logger(url=telltale.url, role="shadow")
    logger.predict({"x": 1.0}, "yes", timestamp=datetime.now(UTC))
    assert logger.flush()
    assert telltale.select("SELECT role FROM predictions") == [{"role": "shadow"}]


def test_what_the_server_rejects_is_counted_and_told(telltale: Telltale, make_logger: MakeLogger) -> None:
    logger = make_logger(url=telltale.url)
    logger.predict({"x": 1.0}, timestamp=4e9)
    logger.predict({"x": 1.0})
    assert logger.flush()
    stats = logger.stats()
    assert (stats.delivered, stats.rejected) == (1, 1)
    assert "in_the_future" in stats.last_error


def test_a_kept_connection_serves_many_batches(gateway: Gateway, make_logger: MakeLogger) -> None:
    logger = make_logger(transport=HttpTransport(gateway.url))
    for _ in range(3):
        logger.predict({"x": 1.0})
        assert logger.flush()
    assert (gateway.connections, len(set(gateway.keys))) == (1, 3)
