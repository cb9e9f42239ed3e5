"""The probe: asks every server's health URL, and reports what it got as health events."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import orjson
import urllib3

from monitor.config import ServerSpec

TIMEOUT = urllib3.Timeout(connect=5.0, read=5.0)
MOST_AT_ONCE = 16


def probe(servers: Mapping[str, ServerSpec], now: datetime) -> list[bytes]:
    """A health event for each server, as lines of the wire contract. A server that does not answer is not ok."""
    if not servers:
        return []
    with (
        urllib3.PoolManager(num_pools=MOST_AT_ONCE, retries=False, timeout=TIMEOUT) as pool,
        ThreadPoolExecutor(min(MOST_AT_ONCE, len(servers))) as threads,
    ):
        answers: Sequence[dict[str, Any]] = list(
            threads.map(lambda url: _ask(pool, url), (s.health_url for s in servers.values()))
        )
    fixed = {"type": "health", "timestamp": now.timestamp()}
    return [orjson.dumps({**fixed, "server": name, **answer}) for name, answer in zip(servers, answers, strict=True)]


def _ask(pool: urllib3.PoolManager, url: str) -> dict[str, Any]:
    """The status is the answer; the body, which may be without end, is not read."""
    started = time.perf_counter()
    try:
        response = pool.request("GET", url, redirect=False, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        answer: dict[str, Any] = {"ok": False, "error": type(error).__name__}
    else:
        response.close()
        answer = {"ok": 200 <= response.status < 300, "status_code": response.status}
    return answer | {"latency_ms": (time.perf_counter() - started) * 1000}
