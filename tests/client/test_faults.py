"""Whatever goes wrong on the way, each event counts once."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import Gateway, Telltale, gateway_to
from given import ServiceMaker, StillClock
from processes import free_port, unavailable, wait_until

from monitor.running import listening, serve
from telltale_client import Logger, over_http

MakeLogger = Callable[..., Logger]


def log_some(logger: Logger, events: int = 5) -> None:
    for n in range(events):
        logger.predict({"x": float(n)}, "yes", latency_ms=1.0)


@pytest.mark.parametrize("fault", [500, 503, 429, 408, "reset", "cut"])
def test_a_batch_is_sent_again_under_its_key_and_counts_once(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, fault: int | str
) -> None:
    gateway.faults.extend([fault, fault])
    logger = make_logger(url=gateway.url)
    log_some(logger)
    assert logger.flush()
    assert len(gateway.keys) == 3
    assert len(set(zip(gateway.keys, gateway.bodies, strict=True))) == 1
    assert telltale.rows() == 5
    stats = logger.stats()
    assert (stats.delivered, stats.retries, stats.dropped) == (5, 2, 0)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("spills", [False, True])
def test_any_run_of_faults_loses_nothing_and_counts_nothing_twice(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, tmp_path: Path, seed: int, *, spills: bool
) -> None:
    chance = random.Random(seed)
    faults = [chance.choice([500, 503, 429, "reset", "cut", "hang up", None]) for _ in range(40)]
    gateway.faults.extend(faults)
    logger = make_logger(url=gateway.url, spill=tmp_path / "spill" if spills else None)
    ids = set()
    while gateway.faults:
        ids |= {logger.predict({"x": 1.0}, "yes") for _ in range(chance.randrange(1, 30))}
        logger.flush(chance.uniform(0, 0.1))
    wait_until(lambda: logger.stats().delivered == len(ids), "all to be delivered", 60)
    rows = telltale.select("SELECT prediction_id FROM predictions FINAL")
    assert sorted(r["prediction_id"] for r in rows) == sorted(ids)
    assert (logger.stats().dropped, logger.stats().spilled) == (0, 0)


def test_a_service_that_is_too_slow_gets_the_batch_again_and_it_counts_once(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_http, "TIMEOUT_SECONDS", 0.3)
    telltale.service.take(b"", "http")
    logger = make_logger(url=gateway.url)
    gateway.faults.append("slow")
    log_some(logger)
    assert logger.flush()
    assert len(set(gateway.keys)) == 1
    assert logger.stats().retries >= 1
    assert telltale.rows() == 5


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_refused_is_not_sent_again_but_counted(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, status: int
) -> None:
    gateway.faults.append(status)
    logger = make_logger(url=gateway.url)
    log_some(logger)
    assert logger.flush()
    log_some(logger)
    assert logger.flush()
    assert telltale.rows() == 5
    stats = logger.stats()
    assert (stats.delivered, stats.dropped, stats.retries) == (5, 5, 0)
    assert f"answered {status}" in stats.last_error


def test_a_batch_that_is_too_large_is_sent_in_smaller_ones(
    make_service: ServiceMaker, clock: StillClock, make_logger: MakeLogger
) -> None:
    clock.at = clock.at.fromtimestamp(time.time(), clock.at.tzinfo)
    service = make_service(sources={"http": {"max_body_bytes": 2000}})
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        logger = make_logger(url=url)
        log_some(logger, 40)
        logger.predict({"x": "long" * 1000}, "yes")
        assert logger.flush()
        stats = logger.stats()
        assert (stats.delivered, stats.dropped) == (40, 1)
        assert service.status()["rows"]["predictions"] == 40


def test_a_service_that_comes_back_gets_everything(telltale: Telltale, make_logger: MakeLogger) -> None:
    port = free_port()
    logger = make_logger(url=f"http://127.0.0.1:{port}")
    log_some(logger)
    wait_until(lambda: logger.stats().retries > 1, "some attempts", 10)
    log_some(logger)
    with gateway_to(telltale.url, port):
        assert logger.flush()
    assert telltale.rows() == 10


def test_over_tls_only_a_server_that_proves_its_name_is_spoken_to(
    telltale: Telltale, make_logger: MakeLogger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        unavailable("no certificate without openssl")
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate"), "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *names]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with gateway_to(telltale.url) as gateway:
        gateway.wrap(context)
        url = gateway.url.replace("http:", "https:")
        stranger = make_logger(url=url)
        log_some(stranger)
        wait_until(lambda: stranger.stats().retries, "an attempt", 10)
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.stats().last_error
        assert gateway.keys == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
        logger = make_logger(url=url)
        log_some(logger)
        assert logger.flush()
        assert telltale.rows() == 5


def test_a_connection_that_was_closed_while_idle_costs_no_retry(gateway: Gateway, make_logger: MakeLogger) -> None:
    gateway.faults.extend(["hang up", "hang up"])
    logger = make_logger(url=gateway.url)
    for _ in range(3):
        log_some(logger, 1)
        assert logger.flush()
    assert (logger.stats().retries, logger.stats().delivered) == (0, 3)


def test_the_pauses_between_attempts_grow_and_differ(make_logger: MakeLogger) -> None:
    logger = make_logger(url=f"http://127.0.0.1:{free_port()}")
    log_some(logger)
    started = time.monotonic()
    wait_until(lambda: logger.stats().retries >= 4, "four attempts", 10)
    assert time.monotonic() - started >= (0.05 + 0.1 + 0.2) / 2


def test_closing_takes_no_longer_than_told_when_nobody_answers() -> None:
    logger = Logger("m", "1", server="pod-1", url=f"http://127.0.0.1:{free_port()}")
    log_some(logger)
    started = time.monotonic()
    logger.close(0.3)
    assert time.monotonic() - started < 5
    assert (logger.stats().dropped, logger.stats().waiting) == (5, 0)
