"""ClickHouse's native protocol, as far as the test server speaks it: numbers, texts, compressed frames and blocks.

Revision 54453 is the last one in which a block on the wire is what the engine writes as format Native.
Blocks that come in are measured, not decoded: the engine reads them itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Protocol

import lz4.block  # type: ignore[import-untyped]  # it has no types
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]  # it has no types

REVISION = 54453
BLOCK_INFO = bytes([1, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0])
"""Field 1, overflows: no. Field 2, bucket: -1. End."""
LZ4, PLAIN = 0x82, 0x02
FRAME_HEAD = struct.Struct("<BII")
LONGEST_FRAME = 2**30
ADDITIONAL_KEYS = 1 << 9
WIDTHS = {
    **dict.fromkeys(("Bool", "Int8", "UInt8"), 1),
    **dict.fromkeys(("Int16", "UInt16"), 2),
    **dict.fromkeys(("Int32", "UInt32", "Float32"), 4),
    **dict.fromkeys(("Int64", "UInt64", "Float64", "DateTime64"), 8),
}


class Source(Protocol):
    """Where bytes come from; fewer than were asked for mean the end."""

    def read(self, size: int, /) -> bytes: ...


class Reader:
    """Reads values, and remembers their bytes while it is told to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: list[bytes] | None = None

    def keep(self) -> None:
        """Remember from here on."""
        self._kept = []

    def kept(self) -> bytes:
        """What was read since, which is remembered no longer."""
        kept, self._kept = b"".join(self._kept or ()), None
        return kept

    def exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise EOFError("the client went away")
        if self._kept is not None:
            self._kept.append(data)
        return data

    def byte(self) -> int:
        return self.exactly(1)[0]

    def uint64(self) -> int:
        return int.from_bytes(self.exactly(8), "little")

    def varint(self) -> int:
        number = shift = 0
        while True:
            part = self.byte()
            number |= (part & 0x7F) << shift
            if part < 0x80:
                return number
            shift += 7

    def raw(self) -> bytes:
        return self.exactly(self.varint())

    def text(self) -> str:
        return self.raw().decode("utf-8", "replace")


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(value: str) -> bytes:
    data = value.encode()
    return varint(len(data)) + data


class Frames:
    """The bytes inside compressed frames."""

    def __init__(self, source: Source) -> None:
        self._reader = Reader(source)
        self._data = b""
        self._at = 0

    def read(self, size: int, /) -> bytes:
        parts = []
        while size:
            if self._at == len(self._data):
                self._data, self._at = self._next(), 0
            part = self._data[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _next(self) -> bytes:
        checksum = self._reader.exactly(16)
        head = self._reader.exactly(FRAME_HEAD.size)
        method, size, plain_size = FRAME_HEAD.unpack(head)
        if max(size, plain_size) > LONGEST_FRAME:
            raise ValueError("a compressed frame is too long")
        body = self._reader.exactly(size - FRAME_HEAD.size)
        if _checksum(head + body) != checksum:
            raise ValueError("a compressed frame does not have its checksum")
        if method == LZ4:
            return bytes(lz4.block.decompress(body, uncompressed_size=plain_size))
        if method == PLAIN:
            return body
        raise ValueError(f"frames are compressed with lz4 or not at all, not with method {method:#x}")


def frame(data: bytes) -> bytes:
    """A compressed frame."""
    body: bytes = lz4.block.compress(data, store_size=False)
    framed = FRAME_HEAD.pack(LZ4, FRAME_HEAD.size + len(body), len(data)) + body
    return _checksum(framed) + framed


def _checksum(data: bytes) -> bytes:
    number = CityHash128(data)
    high, low = number >> 64, number & (2**64 - 1)
    return struct.pack("<QQ", high, low)


def header_block(columns: list[tuple[str, str]]) -> bytes:
    """A block without rows: names and types of columns."""
    return varint(len(columns)) + varint(0) + b"".join(text(name) + text(kind) for name, kind in columns)


def read_block(reader: Reader) -> tuple[int, int, bytes]:
    """How many columns and rows the next block has, and the block itself."""
    while field := reader.varint():
        reader.exactly({1: 1, 2: 4}[field])
    reader.keep()
    columns, rows = reader.varint(), reader.varint()
    for _ in range(columns):
        reader.raw()
        kind = reader.text()
        if rows:
            _skip_prefix(reader, kind)
            _skip_values(reader, kind, rows)
    return columns, rows, reader.kept()


def _parts(kind: str) -> tuple[str, str]:
    """``Array(String)`` is ``Array`` of ``String``."""
    name, _, inner = kind.partition("(")
    return name, inner.removesuffix(")")


def _skip_prefix(reader: Reader, kind: str) -> None:
    name, inner = _parts(kind)
    if name == "LowCardinality":
        reader.uint64()
    elif name in {"Nullable", "Array"}:
        _skip_prefix(reader, inner)


def _skip_values(reader: Reader, kind: str, rows: int) -> None:
    name, inner = _parts(kind)
    if name in WIDTHS:
        reader.exactly(rows * WIDTHS[name])
    elif name == "String":
        for _ in range(rows):
            reader.raw()
    elif name == "Nullable":
        reader.exactly(rows)
        _skip_values(reader, inner, rows)
    elif name == "Array":
        ends = reader.exactly(8 * rows)
        _skip_values(reader, inner, int.from_bytes(ends[-8:], "little"))
    elif name == "LowCardinality":
        _skip_dictionary(reader, inner, rows)
    else:
        raise ValueError(f"the test server takes no values of type {kind}")


def _skip_dictionary(reader: Reader, kind: str, rows: int) -> None:
    if not rows:
        return
    flags = reader.uint64()
    if flags & ADDITIONAL_KEYS:
        name, inner = _parts(kind)
        _skip_values(reader, inner if name == "Nullable" else kind, reader.uint64())
    reader.exactly(reader.uint64() << (flags & 3))


def settings(reader: Reader) -> Iterator[tuple[str, str]]:
    """Names and values of a query's settings."""
    while name := reader.text():
        reader.varint()
        yield name, reader.text()


def skip_client_info(reader: Reader) -> None:
    """What a client says of itself with each query."""
    if not reader.byte():
        return
    for _ in ("user", "query id", "address"):
        reader.raw()
    reader.uint64()  # when the first query began
    reader.byte()  # interface
    for _ in ("system user", "host", "client"):
        reader.raw()
    for _ in ("major version", "minor version", "revision"):
        reader.varint()
    reader.raw()  # quota key
    for _ in ("distributed depth", "patch version"):
        reader.varint()
    if reader.byte():  # a trace
        reader.exactly(24)
        reader.raw()
        reader.byte()
    for _ in ("collaborates", "replicas", "number of this replica"):
        reader.varint()


def exception(code: int, message: str) -> bytes:
    """The body of an exception packet, without a stack trace and without a nested exception."""
    return struct.pack("<i", code) + text("DB::Exception") + text(message) + text("") + b"\0"


def parse_exception(error: Exception) -> tuple[int, str]:
    """Code and message of what the engine raised."""
    found = re.search(r"Code:\s*(\d+)\.\s*(.*)", str(error), re.DOTALL)
    return (int(found[1]), found[2]) if found else (1000, str(error))
