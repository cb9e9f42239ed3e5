"""Frames as the columns of values that the driver of the server sends and receives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from monitor.store.texts import with_leaves

SCALARS = {
    "String": pa.large_binary(),
    "Bool": pa.bool_(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Nothing": pa.null(),
    **{f"{sign}Int{bits}": getattr(pa, f"{sign.lower()}int{bits}")() for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
MILLISECONDS = pl.Datetime("ms", "UTC")
SENT: dict[Any, pl.DataType] = {pl.String: pl.Binary(), pl.Datetime: pl.Int64()}
PART = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]|[^'`(),]+")


def to_columns(rows: pl.DataFrame) -> list[list[Any]]:
    """The columns as the driver takes them: text as bytes, and times as milliseconds, as in every table."""
    stored = [column.cast(with_leaves(column.dtype, {pl.Datetime: MILLISECONDS})) for column in rows]
    return [column.cast(with_leaves(column.dtype, SENT)).to_list() for column in stored]


def from_columns(values: Sequence[Sequence[Any]], kinds: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """The frame of the driver's columns, with bytes for text. Without values the columns have their types all the same.

    Raises ValueError for a type that no table has.
    """
    types = [arrow_type(kind) for _, kind in kinds]
    arrays = [pa.array(v, t) for v, t in zip(values or [()] * len(types), types, strict=True)]
    return pl.DataFrame(pa.table(arrays, names=[name for name, _ in kinds]))


def arrow_type(kind: str) -> pa.DataType:
    """The type of a ClickHouse type's values.

    >>> arrow_type("Tuple(a Array(LowCardinality(Nullable(String))), `b c` DateTime64(3, 'UTC'))")
    StructType(struct<a: list<item: large_binary>, b c: timestamp[ms, tz=UTC]>)
    """
    name, inner = _opened(kind)
    match name, inner:
        case _, [] if name in SCALARS:
            return SCALARS[name]
        case (("Nullable" | "LowCardinality"), [one]):
            return arrow_type(one)
        case "Array", [one]:
            return pa.list_(arrow_type(one))
        case "DateTime64", ["3", "'UTC'"]:
            return pa.timestamp("ms", "UTC")
        case "Tuple", [_, *_]:
            return pa.struct([_field(part, number) for number, part in enumerate(inner, 1)])
    raise ValueError(f"values of type {kind} are not read; convert them in the statement")


def _opened(kind: str) -> tuple[str, list[str]]:
    """``Map(String, Array(UInt8))`` is ``Map`` of ``String`` and ``Array(UInt8)``."""
    name, _, inside = kind.partition("(")
    parts, depth = [""], 0
    for mark in PART.findall(inside.removesuffix(")")):
        depth += (mark == "(") - (mark == ")")
        if mark == "," and not depth:
            parts.append("")
        else:
            parts[-1] += mark
    return name, [part.strip() for part in parts if part]


def _field(part: str, number: int) -> tuple[str, pa.DataType]:
    """A field of a tuple: its name or else its number, and its type."""
    found = re.match(r"(?:`((?:[^`\\]|\\.)*)`|(\w+)) (?=\w)(.*)", part, re.DOTALL)
    if found is None:
        return str(number), arrow_type(part)
    return re.sub(r"\\(.)", r"\1", found[1] or "") or found[2], arrow_type(found[3])
