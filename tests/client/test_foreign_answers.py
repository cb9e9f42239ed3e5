"""Only Telltale's own receipt says that a batch is taken in, and no answer costs memory or time without end."""

from __future__ import annotations

import contextlib
import http.server
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from faulty import Gateway, Telltale
from processes import wait_until

from telltale_client import Logger, over_http
from telltale_client.batches import Batch, UnavailableError
from telltale_client.over_http import HttpTransport

MakeLogger = Callable[..., Logger]
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that reads a request and then does something."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with contextlib.suppress(OSError):
                answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def plain(body: bytes) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in</html>",
        b"",
        b"[]",
        b'{"accepted": "1", "rejected": []}',
        b'{"accepted": 1}',
        b'{"accepted": 1, "rejected": [1]}',
        b"[" * 100_000,
    ],
)
def test_a_page_to_log_in_is_no_receipt(body: bytes) -> None:
    with answering(plain(body)) as url:
        transport = HttpTransport(url)
        with pytest.raises(UnavailableError, match="no receipt of Telltale's: look at the URL"):
            transport.send(Batch((b"{}",)))
        transport.close()


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 405])
def test_a_wrong_key_or_address_costs_nothing_but_time_and_is_said_loudly(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    gateway.faults.extend([status, status])
    logger = make_logger(url=gateway.url)
    logger.predict({"x": 1.0}, "yes")
    assert logger.flush()
    assert telltale.rows() == 1
    assert (logger.stats().delivered, logger.stats().dropped, logger.stats().retries) == (1, 0, 2)
    assert f"answered {status}" in logger.stats().last_error
    (said,) = [record for record in caplog.records if "look at the URL and the API key" in record.getMessage()]
    assert said.levelno == logging.ERROR


def test_half_an_answer_is_a_fault_on_the_way_and_nobody_need_look() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"accepted"')

    with answering(answer) as url:
        transport = HttpTransport(url)
        with pytest.raises(UnavailableError, match="IncompleteRead") as caught:
            transport.send(Batch((b"{}",)))
        assert not caught.value.for_people
        transport.close()


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    sent = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(400):
            request.wfile.write(b"x" * 1_000_000)
            sent.append(1)

    with answering(answer) as url:
        transport = HttpTransport(url)
        with pytest.raises(UnavailableError):
            transport.send(Batch((b"{}",)))
        transport.close()
        assert len(sent) < 100


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_has_to_end_in_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "TIMEOUT_SECONDS", 0.5)
    stopped = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if part == "head" else b"Content-Length: 1000\r\n\r\n"))
        while not stopped.wait(0.05):
            request.wfile.write(b"x")

    with answering(answer) as url:
        transport = HttpTransport(url)
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="Timeout"):
            transport.send(Batch((b"{}",)))
        assert time.monotonic() - started < 5
        transport.close()
        stopped.set()


def test_a_key_that_is_put_right_lets_everything_through(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger
) -> None:
    gateway.faults.extend([401] * 3)
    logger = make_logger(url=gateway.url)
    for n in range(20):
        logger.predict({"x": float(n)}, "yes")
    wait_until(lambda: logger.stats().delivered == 20, "all to arrive", 20)
    assert telltale.rows() == 20
