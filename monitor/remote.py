"""The service that already runs on a data folder, asked over its API."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import urllib3

KEY_VARIABLE = "TELLTALE_API_KEY"
TIMEOUT_SECONDS = 300.0


class RemoteError(Exception):
    """The running service refused or did not answer; the message is the service's own."""


class RemoteService:
    """The same questions as ``Service``, to a running one. Its key, if it needs one, is in ``TELLTALE_API_KEY``."""

    def __init__(self, url: str) -> None:
        self.url = url
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pool = urllib3.PoolManager(headers=headers, timeout=TIMEOUT_SECONDS, retries=False)

    def import_chunk(self, body: bytes, key: str) -> dict[str, Any]:
        """Take a chunk of a file in."""
        return dict(self._json("POST", "/v1/events?source=file", body, {"Idempotency-Key": key}))

    def import_foreign(self, adapter: str, chunk: bytes, key: str, sender: Mapping[str, str]) -> dict[str, Any]:
        """Take a chunk of a file in that an adapter reads."""
        path = f"/v1/adapters/{_quoted(adapter)}?{_query(source='file', **sender)}"
        return dict(self._json("POST", path, chunk, {"Idempotency-Key": key}))

    def register_reference_file(self, name: str, path: Path, version: str, environment: str) -> dict[str, Any]:
        """Keep a table as what a model is compared with."""
        if not path.is_file():
            raise RemoteError(f"{path}: there is no such file")
        query = _query(name=path.name, version=version, environment=environment)
        return dict(self._json("POST", f"/v1/models/{_quoted(name)}/reference?{query}", path.read_bytes()))

    def evaluate(self, name: str, at: datetime | None = None, environment: str = "production") -> dict[str, Any]:
        """Judge the windows that end at a time."""
        return dict(self._json("POST", f"/v1/models/{_quoted(name)}/evaluate?{_query(at=at, environment=environment)}"))

    def fleet(self, name: str, at: datetime | None = None, environment: str = "production") -> list[dict[str, Any]]:
        """Which version served on which server up to a time."""
        found = self._json("GET", f"/v1/models/{_quoted(name)}/fleet?{_query(at=at, environment=environment)}")
        return list(found)

    def budget(self, name: str, environment: str = "production") -> dict[str, Any]:
        """Where the model's budget of false alarms goes."""
        return dict(self._json("GET", f"/v1/models/{_quoted(name)}/budget?{_query(environment=environment)}"))

    def servers(self, at: datetime | None = None, environment: str = "production") -> list[dict[str, Any]]:
        """Every server with what serves there up to a time."""
        return list(self._json("GET", f"/v1/servers?{_query(at=at, environment=environment)}"))

    def export(self, name: str, start: datetime, end: datetime, environment: str = "production") -> bytes:
        """The kept feature rows of a span as a Parquet file."""
        query = _query(start=start, end=end, environment=environment)
        return self._request("GET", f"/v1/models/{_quoted(name)}/export?{query}")

    def replay(
        self, name: str, start: datetime, end: datetime, environment: str = "production", other: bytes = b""
    ) -> dict[str, Any]:
        """What policies would have made of a span of the past."""
        query = _query(start=start, end=end, environment=environment)
        return dict(self._json("POST", f"/v1/models/{_quoted(name)}/replay?{query}", other))

    def audit(self, start: datetime | None = None, end: datetime | None = None, *, repair: bool) -> dict[str, Any]:
        """Hold what is kept against what was counted when it came in."""
        query = _query(start=start, end=end, repair="true" if repair else None)
        return dict(self._json("POST", f"/v1/audit?{query}"))

    def forget(
        self, name: str, prediction_id: str = "", entity_id: str = "", environment: str = "production"
    ) -> dict[str, int]:
        """Remove the rows and labels of one prediction, or of all about somebody."""
        query = _query(prediction_id=prediction_id, entity_id=entity_id, environment=environment)
        return dict(self._json("POST", f"/v1/models/{_quoted(name)}/forget?{query}"))

    def replay_dead_letters(self, reason: str = "") -> dict[str, int]:
        """Take in the dead letters that the rules allow by now."""
        return dict(self._json("POST", f"/v1/dead-letters/replay?{_query(reason=reason)}"))

    def dead_letter_groups(self) -> list[dict[str, Any]]:
        """How many dead letters there are by source and reason, and an example."""
        return list(self._json("GET", "/v1/dead-letters"))

    def dead_letter_lines(self, reason: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """The latest dead letters, with what they held."""
        return list(self._json("GET", f"/v1/dead-letters/lines?{_query(reason=reason, limit=str(limit))}"))

    def status(self) -> dict[str, Any]:
        """What is kept, and what goes on."""
        return dict(self._json("GET", "/v1/status"))

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _json(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        return json.loads(self._request(method, path, body, headers))

    def _request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
        merged = {**self._pool.headers, **(headers or {})}
        try:
            response = self._pool.request(method, self.url + path, body=body or None, headers=merged)
        except urllib3.exceptions.HTTPError as error:
            raise RemoteError(f"the service at {self.url} does not answer: {type(error).__name__}") from None
        if response.status >= 400:
            raise RemoteError(f"the service at {self.url} answered {response.status}: {_detail(response.data)}")
        return response.data


def _detail(data: bytes) -> str:
    try:
        detail = json.loads(data)["detail"]
    except (ValueError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace")
    return detail if isinstance(detail, str) else json.dumps(detail)[:500]


def _query(**values: str | datetime | None) -> str:
    texts = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}
    return urllib.parse.urlencode({k: v for k, v in texts.items() if v})


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
