"""Text from the engines, whose strings are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl


def with_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with text in place of bytes, also inside lists and structs. What is not UTF-8 is replaced by U+FFFD."""
    return pl.DataFrame([_texts(column) for column in frame])


def _texts(column: pl.Series) -> pl.Series:
    dtype = with_leaves(column.dtype, {pl.Binary: pl.String()})
    if dtype == column.dtype:
        return column
    try:
        return column.cast(dtype)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [_decoded(value) for value in column.to_list()], dtype)


def with_leaves(dtype: Any, others: Mapping[Any, pl.DataType]) -> pl.DataType:
    """The type with other types in place of some, also inside lists and structs.

    >>> with_leaves(pl.List(pl.Binary), {pl.Binary: pl.String()})
    List(String)
    """
    match dtype:
        case pl.List():
            return pl.List(with_leaves(dtype.inner, others))
        case pl.Struct():
            return pl.Struct([pl.Field(field.name, with_leaves(field.dtype, others)) for field in dtype.fields])
    kept: pl.DataType = dtype
    return others.get(dtype.base_type(), kept)


def _decoded(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case list():
            return [_decoded(one) for one in value]
        case dict():
            return {name: _decoded(one) for name, one in value.items()}
    return value
