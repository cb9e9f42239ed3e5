"""One attempt over real sockets."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import LOOPBACK, Receiver, Script, talking

from alerts.delivery import MOST_BODY_BYTES, send
from alerts.transport import Request

HEADERS = {"content-type": "application/json", "webhook-id": "msg_1"}


def request(url: str, **settings: Any) -> Request:
    defaults: dict[str, Any] = {"timeout_seconds": 10.0, "allow_networks": LOOPBACK}
    return Request(url, HEADERS, b'{"type":"x"}', **defaults | settings)


def at(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _host, _port: addresses


def test_the_body_arrives_as_it_is_with_its_headers() -> None:
    with Receiver(Script(204)) as receiver:
        answer = send(request(receiver.url + "?a=1"))
    assert (answer.received, answer.status, answer.error) == (True, 204, "")
    (got,) = receiver.received
    assert (got.path, got.body, got.id) == ("/hook?a=1", b'{"type":"x"}', "msg_1")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [100 + 99, 300, 304, 400, 401, 404, 410, 429, 500, 503])
def test_only_2xx_is_received(status: int) -> None:
    with Receiver(Script(status)) as receiver:
        answer = send(request(receiver.url))
    assert (answer.received, answer.status, answer.gone) == (False, status, status == 410)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with Receiver() as elsewhere, Receiver(Script(status, {"location": elsewhere.url})) as receiver:
        assert not send(request(receiver.url)).received
    assert elsewhere.received == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_is_taken_from_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(Script(500)) as proxy, Receiver() as receiver:
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert send(request(receiver.url)).received
    assert proxy.received == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "120"}, timedelta(seconds=120)),
        (
            {"date": "Mon, 02 Mar 2026 10:00:00 GMT", "retry-after": "Mon, 02 Mar 2026 10:05:00 GMT"},
            timedelta(minutes=5),
        ),
        ({"date": "Mon, 02 Mar 2026 10:00:00 GMT", "retry-after": "Mon, 02 Mar 2026 09:00:00 GMT"}, timedelta(0)),
        ({"retry-after": "-5"}, timedelta(0)),
        ({"retry-after": "soon"}, timedelta(0)),
        ({"retry-after": "9" * 40}, timedelta(0)),
        ({}, timedelta(0)),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(headers: dict[str, str], expected: timedelta) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 429 Too Many\r\n{lines}content-length: 0\r\n\r\n".encode())

    with talking(talk) as port:
        answer = send(request(f"http://127.0.0.1:{port}/"))
    assert (answer.status, answer.retry_after) == (429, expected)


def test_of_a_huge_answer_only_the_beginning_is_read() -> None:
    sent_all = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n")
        for _ in range(4000):
            connection.sendall(b"x" * 1_000_000)
        sent_all.set()

    with talking(talk) as port:
        answer = send(request(f"http://127.0.0.1:{port}/"))
    assert answer.received
    assert answer.body == "x" * MOST_BODY_BYTES
    assert not sent_all.is_set()


def drip(connection: socket.socket, first: bytes, stop: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(first)
    while not stop.wait(0.02):
        connection.sendall(b"x")


def test_an_answer_that_drips_for_ever_ends_at_the_timeout() -> None:
    stop = threading.Event()
    with talking(lambda connection: drip(connection, b"", stop)) as port:
        answer = send(request(f"http://127.0.0.1:{port}/secret-path", timeout_seconds=0.3))
        stop.set()
    assert (answer.status, answer.error) == (None, f"http://127.0.0.1:{port}: no answer within 0.3 s")


@pytest.mark.parametrize("rest", [b"slow: ", b"content-length: 100000\r\n\r\n"])
def test_a_status_counts_although_what_follows_never_ends(rest: bytes) -> None:
    stop = threading.Event()
    with talking(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\n" + rest, stop)) as port:
        answer = send(request(f"http://127.0.0.1:{port}/", timeout_seconds=0.3))
        stop.set()
    assert answer.received


def test_a_receiver_that_says_nothing_ends_at_the_timeout() -> None:
    stop = threading.Event()

    def wait(_: socket.socket) -> None:
        stop.wait(30)

    with talking(wait) as port:
        answer = send(request(f"http://127.0.0.1:{port}/", timeout_seconds=0.2))
        stop.set()
    assert "no answer within 0.2 s" in answer.error


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 two OK\r\n\r\n", b"\x00" * 100])
def test_what_is_not_http_is_an_error_without_the_url(said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with talking(talk) as port:
        answer = send(request(f"http://127.0.0.1:{port}/secret-path?key=hunter2"))
    assert answer.status is None
    assert answer.error.startswith(f"http://127.0.0.1:{port}: ")
    assert "secret" not in answer.error
    assert "hunter2" not in answer.error


def test_a_refused_connection_is_an_error_and_the_next_address_is_tried() -> None:
    with Receiver() as receiver:
        url = f"http://hook.example:{receiver.port}/"
        assert send(request(url), at("127.0.0.2", "127.0.0.1")).received
        answer = send(request(url), at("127.0.0.2", "127.0.0.3"))
    assert (answer.status, "refused" in answer.error) == (None, True)


def test_after_sending_no_other_address_is_tried() -> None:
    """The first receiver may have acted on it."""
    requests: list[bytes] = []
    with talking(lambda connection: requests.append(connection.recv(65536))) as port:
        answer = send(request(f"http://hook.example:{port}/"), at("127.0.0.1", "127.0.0.1"))
    assert "broke off" in answer.error
    assert len(requests) == 1


# Where it may not go


def test_a_private_address_is_never_connected_to() -> None:
    with Receiver() as receiver:
        answer = send(request(receiver.url, allow_networks=()))
        assert "no public address" in answer.error
        mixed = send(request(f"http://hook.example:{receiver.port}/", allow_networks=()), at("8.8.8.8", "127.0.0.1"))
        assert "127.0.0.1" in mixed.error
    assert receiver.received == []


def test_a_name_that_changes_its_address_after_the_check_changes_nothing() -> None:
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.9"]

    with Receiver() as receiver:
        url = f"http://hook.example:{receiver.port}/"
        assert send(request(url, allow_networks=("127.0.0.1/32",)), rebinding).received
        assert asked == ["hook.example"]
        assert not send(request(url, allow_networks=("127.0.0.1/32",)), rebinding).received
    (got,) = receiver.received
    assert got.headers["host"] == f"hook.example:{receiver.port}"


def test_tls_is_held_against_the_hosts_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_certificate(tmp_path, "hook.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    receiver = Receiver()
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    receiver.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake is expected
    with receiver:
        untrusted = send(request(f"https://hook.example:{receiver.port}/"), at("127.0.0.1"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusted = send(request(f"https://hook.example:{receiver.port}/"), at("127.0.0.1"))
        misnamed = send(request(f"https://other.example:{receiver.port}/"), at("127.0.0.1"))
    assert trusted.received
    assert [r.headers["host"] for r in receiver.received] == [f"hook.example:{receiver.port}"]
    assert asked_for == ["hook.example", "hook.example", "other.example"]
    for refused in (untrusted, misnamed):
        assert (refused.status, "certificate" in refused.error) == (None, True)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; it makes the certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, "req", "-x509", *curve, *subject, *files], check=True, capture_output=True)
    return certificate, key


def test_a_handshake_that_drips_ends_at_the_timeout() -> None:
    stop = threading.Event()
    record = b"\x16\x03\x03\x40\x00"  # the head of a TLS record that then never comes
    with talking(lambda connection: drip(connection, record, stop)) as port:
        answer = send(request(f"https://127.0.0.1:{port}/", timeout_seconds=0.3))
        stop.set()
    assert "no answer within 0.3 s" in answer.error


def test_a_request_does_not_show_its_url_or_body() -> None:
    shown = repr(request("https://ci.example/hook?token=hunter2"))
    assert "hunter2" not in shown
    assert "msg_1" not in shown
