"""Tables of events, as Arrow streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import ipc


def stream(table: pa.Table, rows: int | None = None, compression: str | None = None) -> bytes:
    """A table as an Arrow stream, in record batches of so many rows."""
    out = pa.BufferOutputStream()
    with ipc.new_stream(out, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=rows)
    body: bytes = out.getvalue().to_pybytes()
    return body


def table_of(events: Sequence[dict[str, Any]]) -> pa.Table:
    """Events as a table, with the types that their values have."""
    names = dict.fromkeys(name for event in events for name in event)
    return pa.table({name: [event.get(name) for event in events] for name in names})
