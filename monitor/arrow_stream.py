"""Arrow's IPC streams from anybody: what they say is held against limits before anything is unpacked.

A stream is a few messages: the schema, dictionaries, record batches. Each says how many rows and bytes it holds, also
of what is compressed, so that a small body that would become a large table is refused while it is small. What is
unpacked is validated to the last offset and letter before anything looks at it: pyarrow trusts what it computes with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from monitor.tables import BadTableError, LargeTableError

LARGEST_TABLE = 64 * 1024 * 1024
"""Of the table as lines, roughly, in bytes: names are repeated in each of them."""
MOST_COLUMNS = 10_000
LARGEST_SCHEMA = 4 * 1024 * 1024
DEEPEST = 4
ROW_BYTES, CELL_BYTES = 64, 8
"""So much at least has an event as a line, and a value in it beside its name."""
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
NOT_COMPRESSED = -1
FILE = b"ARROW1"


@dataclass(frozen=True)
class Head:
    """What a stream says of itself: how many rows it has, and about how many bytes they are as lines."""

    rows: int
    size: int


def read_head(raw: bytes) -> Head:
    """Look at a stream without unpacking it. Raises BadTableError."""
    try:
        return _head(raw)
    except (BadTableError, pa.ArrowMemoryError):
        raise
    except (pa.ArrowException, OSError, struct.error, ValueError) as error:
        raise BadTableError(f"it is no whole Arrow stream: {_first_line(error)}") from None


def read_table(raw: bytes) -> pa.Table:
    """The table in a stream, every offset and letter of it looked at. Raises BadTableError."""
    read_head(raw)
    try:
        with ipc.open_stream(raw) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except pa.ArrowMemoryError:  # that is our lack, not the table's; the same is tried again
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadTableError(f"its data are broken: {_first_line(error)}") from None
    return table.replace_schema_metadata(None)


def _head(raw: bytes) -> Head:
    if raw.startswith(FILE):
        raise BadTableError("it is an Arrow file; send the stream format")
    reader = pa.BufferReader(raw)
    messages = iter(ipc.MessageReader.open_stream(reader))
    width = _width(next(messages, None))
    rows = size = 0
    for message in messages:
        if message.type not in ("dictionary", "record batch"):
            raise BadTableError(f"it holds a message of the type {message.type}, which is not of a table")
        length, unpacked = _held(message)
        size += unpacked
        if message.type == "record batch":
            rows += length
            size += length * width
        if size > LARGEST_TABLE:
            raise LargeTableError(f"it has more than {LARGEST_TABLE} bytes as lines; send smaller tables")
    end = reader.tell()
    if not raw.endswith(END_OF_STREAM, 0, end):
        raise BadTableError("it ends without an end-of-stream mark, so something is missing; close the writer")
    if end != len(raw):
        raise BadTableError(f"{len(raw) - end} bytes follow the end of the stream; send one stream at a time")
    return Head(rows, size)


def _width(first: ipc.Message | None) -> int:
    if first is None or first.type != "schema":  # pyarrow crashes when it reads another one as a schema
        raise BadTableError("it does not begin with a schema")
    if first.metadata.size > LARGEST_SCHEMA:
        raise LargeTableError(f"its schema has {first.metadata.size} bytes; at most {LARGEST_SCHEMA} are allowed")
    return row_width(ipc.read_schema(first))


def row_width(schema: pa.Schema) -> int:
    """Bytes that a row of such a table needs at least as a line. Raises BadTableError."""
    names = [name for field in schema for name in _names(field, DEEPEST)]
    if len(names) > MOST_COLUMNS:
        raise LargeTableError(f"it has {len(names)} columns; at most {MOST_COLUMNS} are allowed")
    return ROW_BYTES + sum(len(name) + CELL_BYTES for name in names)


def _names(field: pa.Field, depth: int) -> Iterator[str]:
    if not depth:
        raise BadTableError(f"column {field.name[:60]!r} is nested too deeply")
    yield field.name
    for i in range(field.type.num_fields):
        yield from _names(field.type.field(i), depth - 1)


def _held(message: ipc.Message) -> tuple[int, int]:
    """How many rows a message holds, and how many bytes when unpacked."""
    meta = message.metadata.to_pybytes()
    header = _table(meta, _at(meta, struct.unpack_from("<I", meta)[0], 2))
    if message.type == "dictionary":
        header = _table(meta, _at(meta, header, 1))
    (rows,) = struct.unpack_from("<q", meta, _at(meta, header, 0)) if _at(meta, header, 0) else (0,)
    if rows < 0:
        raise BadTableError("a part of it says that it has less than no rows")
    if not _at(meta, header, 2):
        return rows, 0
    vector = _table(meta, _at(meta, header, 2))
    (count,) = struct.unpack_from("<I", meta, vector)
    buffers = np.frombuffer(meta, "<i8", 2 * count, vector + 4).reshape(count, 2)
    if (buffers < 0).any():
        raise BadTableError("a part of it says that it has less than no bytes")
    if not _at(meta, header, 3):
        return rows, int(buffers[:, 1].sum())
    body = memoryview(message.body)
    return rows, sum(_unpacked(body, *b) for b in buffers.tolist() if b[1])


def _unpacked(body: memoryview, offset: int, length: int) -> int:
    """The size that a compressed buffer will have: it begins with it."""
    (size,) = struct.unpack_from("<q", body, offset)
    if size < NOT_COMPRESSED:
        raise BadTableError("a compressed part of it says that it has less than no bytes")
    return length if size == NOT_COMPRESSED else int(size)


def _at(meta: bytes, table: int, field: int) -> int:
    """Where a field of a flatbuffer's table is; 0 where it is left out. That they are tables was checked by pyarrow."""
    vtable = table - struct.unpack_from("<i", meta, table)[0]
    if 4 + 2 * field >= struct.unpack_from("<H", meta, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", meta, vtable + 4 + 2 * field)[0]
    return table + offset if offset else 0


def _table(meta: bytes, at: int) -> int:
    """What a reference in a flatbuffer points to."""
    return at + int(struct.unpack_from("<I", meta, at)[0])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
