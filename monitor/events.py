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

Key = (
    Annotated[str, Field(min_length=1)]
    | Annotated[int, Field(ge=-(2**63), lt=2**64)]
    | Annotated[float, Field(gt=-(2**53), lt=2**53)]
)
Timestamp = Annotated[
    datetime | float, Field(description="RFC 3339 with an offset, or seconds since 1970-01-01T00:00Z.")
]


class _Event(BaseModel):
    model_config = ConfigDict(extra="allow")

    environment: Annotated[str, Field(min_length=1, description="Part of every key.")] = "production"


class Prediction(_Event):
    """A model answered, or failed to."""

    type: Literal["prediction"]
    model: Key
    version: Key
    server: Key
    prediction_id: Key
    timestamp: Timestamp
    features: dict[str, object] | None = Field(default=None, description="Numbers, strings, booleans or null.")
    prediction: object = Field(
        default=None,
        description="A number, a text, a boolean, or an object with `score` (a number, or a probability per class) and "
        "`label`; anything else counts as of a wrong kind.",
    )
    latency_ms: object = None
    status: Literal["ok", "error"] = "ok"
    error: object = None
    role: Literal["live", "shadow"] = "live"
    sampling_fraction: Annotated[float, Field(ge=1e-6, le=1)] | None = 1.0
    entity_id: object = None
    segments: dict[str, object] | None = None
    batch_id: object = None
    trace_id: object = None


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
    by: object = None
    reason: object = None
    artifact_digest: object = None


class Health(_Event):
    """A health check of a server."""

    type: Literal["health"]
    server: Key
    timestamp: Timestamp
    ok: bool
    latency_ms: float
    model: Key | None = None
    version: Key | None = None
    status_code: Annotated[int, Field(ge=0, lt=65536)] | None = None
    error: object = None
    resources: dict[str, float] | None = None


EVENT: TypeAdapter[Prediction | Label | Release | Health] = TypeAdapter(
    Annotated[Prediction | Label | Release | Health, Field(discriminator="type")]
)


def json_schema() -> str:
    """The contract as JSON Schema, as it is kept in ``docs/events.schema.json``."""
    return json.dumps(EVENT.json_schema(), indent=2, sort_keys=True) + "\n"
