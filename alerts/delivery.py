"""Sends one request, and never where it should not go. Alerts make outgoing connections here and nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from alerts.addresses import AddressRefusedError, Resolver, checked_addresses, resolve
from alerts.transport import Answer, Request

MOST_BODY_BYTES = 1024
PORTS = {"http": 80, "https": 443}


class _ConnectError(Exception):
    """There is no connection, so nothing was sent."""


def send(request: Request, resolver: Resolver = resolve) -> Answer:
    """One attempt. Does not raise for what a network or a receiver can do: the answer says what happened.

    The host is resolved once, every address is checked, and the connection goes to a checked address, with the host's
    own name in the request and in TLS. No redirect is followed, no proxy is taken from the environment, no more than
    1 KiB of the answer's body is read, and all of it ends after the request's timeout.
    """
    parts = urlsplit(request.url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    deadline = time.monotonic() + request.timeout_seconds
    late = Answer(None, f"{request.origin}: no answer within {request.timeout_seconds:g} s")
    try:
        addresses = checked_addresses(host, port, request.allow_networks, resolver)
    except AddressRefusedError as error:
        return Answer(None, str(error))
    answer = late
    for address in addresses:
        try:
            return _post(request, parts, (address, port), deadline)
        except (_ConnectError, OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                return late
            answer = Answer(None, f"{request.origin}: {_plain(error)}")
            if not isinstance(error, _ConnectError):
                break
    return answer


def _post(request: Request, parts: SplitResult, address: tuple[str, int], deadline: float) -> Answer:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"host": parts.netloc, "connection": "close", **request.headers}
    with _connected(address, deadline) as raw, _secured(raw, parts) as stream:
        connection = http.client.HTTPConnection(*address)
        connection.sock = stream
        connection.request("POST", target, request.body, headers)
        with connection.getresponse() as response:
            body = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = response.read(MOST_BODY_BYTES)
            return Answer(response.status, "", body.decode("utf-8", "replace"), _retry_after(response.headers))


@contextlib.contextmanager
def _connected(address: tuple[str, int], deadline: float) -> Iterator[socket.socket]:
    """A connection that is cut at the deadline, however slowly the other side goes on talking."""
    left = deadline - time.monotonic()
    try:
        raw = socket.create_connection(address, timeout=max(left, 0.001))
    except OSError as error:
        raise _ConnectError(_plain(error)) from None
    # TLS takes the socket over; a second handle on the connection stays ours to cut.
    with raw, raw.dup() as handle:
        cut = threading.Timer(max(deadline - time.monotonic(), 0), _cut, [handle])
        cut.daemon = True
        cut.start()
        try:
            yield raw
        finally:
            cut.cancel()
            cut.join()


def _cut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


def _secured(raw: socket.socket, parts: SplitResult) -> socket.socket:
    if parts.scheme == "http":
        return raw
    return ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)


def _retry_after(headers: Message) -> timedelta:
    """What the header asks for; a date counts from the receiver's own. Zero where it makes no sense."""
    asked = headers.get("retry-after", "")
    try:
        if asked.isdecimal():
            return timedelta(seconds=int(asked))
        return max(parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("date", "")), timedelta(0))
    except (ValueError, TypeError, OverflowError):
        return timedelta(0)


def _plain(error: Exception) -> str:
    """Never the error's own text where that may show the URL."""
    if isinstance(error, http.client.HTTPException):
        return f"the answer is not HTTP, or broke off ({type(error).__name__})"
    return str(getattr(error, "strerror", None) or error)
