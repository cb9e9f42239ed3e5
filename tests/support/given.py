"""Things that tests of several rooms are given: a clock that stands still, and events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.service import Service

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ServiceMaker = Callable[..., Service]


class StillClock:
    """Tells the time it was set to."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def prediction(number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """A prediction event of model ``m``."""
    event = {
        "type": "prediction",
        "model": "m",
        "version": "1",
        "server": f"pod-{number % 3}",
        "prediction_id": f"p{number}",
        "timestamp": at.timestamp(),
        "features": {"x": float(number % 7), "c": "ab"[number % 2]},
        "prediction": "yes",
        "latency_ms": 5.0,
    }
    return {**event, **more}


def ndjson(events: list[dict[str, Any]]) -> bytes:
    """Events as lines."""
    return b"\n".join(map(orjson.dumps, events))
