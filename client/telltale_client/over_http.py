"""Batches over HTTP, with the standard library: NDJSON to ``POST /v1/events``."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any

from telltale_client.batches import Batch, Receipt, RefusedError, UnavailableError
from telltale_client.encoding import described

TIMEOUT_SECONDS = 10.0
LONGEST_ANSWER = 1024 * 1024
MANY_REQUESTS, TIMED_OUT, TOO_LARGE = 429, 408, 413
REFUSED = (400, TOO_LARGE, 422)
"""What says that the batch itself is wrong. Anything else is said of the place, the key or the moment."""


class HttpTransport:
    """One kept connection to a Telltale.

    url
        Where it is, such as ``http://telltale:8300``.
    key, key_file
        The API key, or a file with it, which is read for every batch, so that it can be replaced.

    Raises ValueError when the address is none. The key is in no message and no repr.
    """

    def __init__(self, url: str, key: str = "", key_file: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("the URL of Telltale should look like http://telltale:8300")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._connection.response_class = _Answer
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._place = f"{parts.scheme}://{parts.netloc}"
        self._key = key
        self._key_file = key_file

    def __repr__(self) -> str:
        return f"HttpTransport({self._place!r})"

    @property
    def destination(self) -> str:
        """The address that it posts to."""
        return self._place + self._path

    def send(self, batch: Batch) -> Receipt:
        """Send a batch, and return when it is durable there. Raises UnavailableError, RefusedError."""
        headers = {"Content-Type": batch.content_type, "Idempotency-Key": batch.key, **self._authorization()}
        idle = self._connection.sock is not None
        try:
            try:
                status, after, answer = self._post(batch.body, headers)
            except (http.client.RemoteDisconnected, ConnectionError):
                if not idle:
                    raise
                self._connection.close()  # the server had closed a connection that was idle for long
                status, after, answer = self._post(batch.body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnavailableError(f"{self._place}: {described(error)[:200]}") from None
        return self._receipt(status, after, answer)

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        self._connection.close()

    def abandon(self) -> None:
        """Close this process's end. The parent's stays as it is."""
        self._connection.close()

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        if self._connection.sock is not None:
            self._connection.sock.settimeout(TIMEOUT_SECONDS)
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        answer = response.read(LONGEST_ANSWER)
        if response.length and len(answer) < LONGEST_ANSWER:
            raise http.client.IncompleteRead(answer, response.length)
        if not response.isclosed():
            self._connection.close()  # more of it is to come, which nobody wants
        return response.status, response.headers.get("Retry-After", ""), answer

    def _receipt(self, status: int, after: str, answer: bytes) -> Receipt:
        told = f"{self._place} answered {status}: {answer[:200].decode('utf-8', 'replace')}"
        if status in REFUSED:
            raise RefusedError(told, too_large=status == TOO_LARGE)
        if status // 100 == 2:
            if (receipt := _read_receipt(answer)) is not None:
                return receipt
            raise UnavailableError(f"{told}; this is no receipt of Telltale's: look at the URL", for_people=True)
        if status // 100 == 5 or status in (TIMED_OUT, MANY_REQUESTS):
            raise UnavailableError(told, float(after) if after.isdecimal() else 0.0)
        raise UnavailableError(f"{told}; look at the URL and the API key", for_people=True)

    def _authorization(self) -> dict[str, str]:
        key = self._key
        if self._key_file:
            try:
                key = Path(self._key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                told = f"{self._key_file}: no key could be read: {type(error).__name__}"
                raise UnavailableError(told, for_people=True) from None
        if not key.isascii() or not key.isprintable():
            raise UnavailableError("the API key is not plain text", for_people=True)
        return {"Authorization": f"Bearer {key}"} if key else {}


class _Answer(http.client.HTTPResponse):
    """An answer that has to be there as a whole in time, however few bytes come at once."""

    def __init__(self, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, time.monotonic() + TIMEOUT_SECONDS))


class _Until(io.RawIOBase):
    """Bytes of a socket until a moment."""

    def __init__(self, inner: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._inner = inner
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not end in time")
        self._sock.settimeout(left)
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _read_receipt(answer: bytes) -> Receipt | None:
    """What Telltale says of a batch. None where this is somebody else's answer, such as a page to log in."""
    try:
        told = json.loads(answer)
        accepted, rejected = told["accepted"], told["rejected"]
        if type(accepted) is not int or type(rejected) is not list:
            return None
        return Receipt(accepted, len(rejected), str(rejected[0]["reason"])[:200] if rejected else "")
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
