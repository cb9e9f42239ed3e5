"""The ways on which the same events come in: as lines, or as tables by HTTP, by Kafka and from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

    from monitor.service import Service

MESSAGE_ROWS = 1_000
ARRIVED = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Way:
    """How NDJSON is made what is sent (before the clock runs), and how that is taken in."""

    name: str
    prepare: Callable[[bytes, Path], Any]
    take: Callable[[Service, Any, int], object]


def as_table(body: bytes) -> pa.Table:
    """Events in columns, as batch jobs have them."""
    import pyarrow as pa

    events = [orjson.loads(line) for line in body.split(b"\n")]
    columns: dict[str, list[Any]] = {}
    for name, first in events[0].items():
        if isinstance(first, dict):
            columns |= {f"{name}.{inner}": [e[name][inner] for e in events] for inner in first}
        else:
            columns[name] = [e[name] for e in events]
    return pa.table(columns)


def stream(table: pa.Table) -> bytes:
    """As an Arrow stream."""
    import pyarrow as pa

    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    body: bytes = out.getvalue().to_pybytes()
    return body


def _messages(body: bytes, _: Path) -> list[bytes]:
    table = as_table(body)
    return [stream(table.slice(first, MESSAGE_ROWS)) for first in range(0, table.num_rows, MESSAGE_ROWS)]


def _take_messages(service: Service, messages: list[bytes], number: int) -> object:
    from monitor.ingest import Origin
    from monitor.tables import TableLines, one_after_another

    lines = one_after_another([TableLines(message) for message in messages])
    at = [ARRIVED.timestamp()] * len(lines)
    return service.take_batch(lines, Origin("kafka/t/0/log", str(number), ARRIVED, at, number))


def _parquet(body: bytes, folder: Path) -> Path:
    import pyarrow.parquet

    path = folder / "events.parquet"
    pyarrow.parquet.write_table(as_table(body), path)
    return path


def _import(service: Service, path: Path, _: int) -> object:
    from monitor.table_files import import_table

    return list(import_table(service, path))


LINES = Way("lines", lambda body, _: body, lambda service, body, _: service.take(body, "http"))
ARROW = Way("Arrow", lambda body, _: stream(as_table(body)), lambda service, body, _: service.take(body, "http"))
MESSAGES = Way(f"Arrow messages of {MESSAGE_ROWS:,}", _messages, _take_messages)
PARQUET = Way("Parquet", _parquet, _import)
