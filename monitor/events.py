"""The wire contract: what one line of a scoring log may say.

These models are the contract as documentation and as JSON Schema. Decoding does not run through them, it is in
``decode.py``; a test holds the two equal.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_EVENT_BYTES = 1024 * 1024
FUTURE_LIMIT_SECONDS = 300.0
"""How far ahead of its arrival an event may be dated; clocks differ, but not by more."""

Key = Annotated[str, Field(min_length=1)] | int
Timestamp = Annotated[
    datetime | float, Field(description="RFC 3339 with an offset, or seconds since 1970-01-01T00:00Z.")
]
Scalar = float | str | bool | None


class _Event(BaseModel):
    model_config = ConfigDict(extra="allow")

    environment: Annotated[str, Field(min_length=1, description="Part of every key.")] = "production"


class ScoreAndLabel(BaseModel):
    """A prediction that carries a score, a label, or both."""

    score: float | dict[str, float] | None = Field(default=None, description="One number, or a probability per class.")
    label: str | float | bool | None = None


class Prediction(_Event):
    """A model answered, or failed to."""

    type: Literal["prediction"]
    model: Key
    version: Key
    server: Key
    prediction_id: Key
    timestamp: Timestamp
    features: dict[str, object] | None = Field(default=None, description="Numbers, strings, booleans or null.")
    prediction: float | str | bool | ScoreAndLabel | None = None
    latency_ms: object = None
    status: Literal["ok", "error"] = "ok"
    error: str | None = None
    role: Literal["live", "shadow"] = "live"
    sampling_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    entity_id: str | int | None = None
    segments: dict[str, str | int | bool | None] | None = None
    batch_id: str | int | None = None
    trace_id: str | int | None = None


class Label(_Event):
    """The truth about a prediction became known, was corrected, or (null) was taken back."""

    type: Literal["label"]
    model: Key
    prediction_id: Key
    label: str | float | bool | None
    timestamp: Timestamp
    outcomes: dict[str, float] | None = None


class Release(_Event):
    """Somebody or something changed what serves."""

    type: Literal["release"]
    model: Key
    version: Key
    action: Literal["deploy", "promote", "retire", "rollback"]
    timestamp: Timestamp
    servers: list[str] | None = None
    by: str | None = None
    reason: str | None = None
    artifact_digest: str | None = None


class Health(_Event):
    """A health check of a server."""

    type: Literal["health"]
    server: Key
    timestamp: Timestamp
    ok: bool
    latency_ms: float
    model: Key | None = None
    version: Key | None = None
    status_code: int | None = None
    error: str | None = None
    resources: dict[str, float] | None = None


EVENT: TypeAdapter[Prediction | Label | Release | Health] = TypeAdapter(
    Annotated[Prediction | Label | Release | Health, Field(discriminator="type")]
)


def json_schema() -> str:
    """The contract as JSON Schema, as it is kept in ``docs/events.schema.json``."""
    return json.dumps(EVENT.json_schema(), indent=2, sort_keys=True) + "\n"
