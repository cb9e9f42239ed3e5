"""Batches over HTTP, with the standard library: NDJSON to ``POST /v1/events``."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from pathlib import Path

from telltale_client.batches import Batch, Receipt, RefusedError, UnavailableError

TIMEOUT_SECONDS = 10.0
MANY_REQUESTS, TIMED_OUT, TOO_LARGE = 429, 408, 413


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
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._place = f"{parts.scheme}://{parts.netloc}"
        self._key = key
        self._key_file = key_file

    def __repr__(self) -> str:
        return f"HttpTransport({self._place!r})"

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
            raise UnavailableError(f"{self._place}: {type(error).__name__}: {str(error)[:200]}") from None
        return self._receipt(batch, status, after, answer)

    def close(self) -> None:
        """Close the connection; the next batch opens another."""
        self._connection.close()

    def abandon(self) -> None:
        """Close this process's end. The parent's stays as it is."""
        self._connection.close()

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        return response.status, response.headers.get("Retry-After", ""), answer

    def _receipt(self, batch: Batch, status: int, after: str, answer: bytes) -> Receipt:
        if status // 100 == 2:
            return _read_receipt(batch, answer)
        told = f"{self._place} answered {status}: {answer[:200].decode('utf-8', 'replace')}"
        if status // 100 == 5 or status in (TIMED_OUT, MANY_REQUESTS):
            raise UnavailableError(told, float(after) if after.isdecimal() else 0.0)
        raise RefusedError(told, too_large=status == TOO_LARGE)

    def _authorization(self) -> dict[str, str]:
        key = self._key
        if self._key_file:
            try:
                key = Path(self._key_file).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UnavailableError(f"{self._key_file}: no key could be read: {type(error).__name__}") from None
        if not key.isascii() or not key.isprintable():
            raise UnavailableError("the API key is not plain text")
        return {"Authorization": f"Bearer {key}"} if key else {}


def _read_receipt(batch: Batch, answer: bytes) -> Receipt:
    try:
        told = json.loads(answer)
        rejected = told["rejected"]
        reason = str(rejected[0]["reason"])[:200] if rejected else ""
        return Receipt(int(told["accepted"]), len(rejected), reason)
    except (ValueError, TypeError, LookupError):
        return Receipt(len(batch.lines))  # a gateway in between has words of its own for "done"
