"""Events to lines. A value that JSON does not know becomes what it means, and none costs the rest of its row."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

DEEPEST = 16
LONGEST_ERROR = 1000
MISSING_TYPES = frozenset({"NAType", "NaTType"})
"""What pandas has for a missing value; NaT passes for a datetime."""


def encode(event: dict[str, Any]) -> bytes:
    """An event as a line of the wire contract. NaN and Infinity stay: that a value is not finite is evidence.

    >>> from decimal import Decimal
    >>> encode({"features": {"a": Decimal("1.5"), "b": float("nan"), "c": object()}})
    b'{"features":{"a":1.5,"b":NaN,"c":"<object>"}}'
    """
    for name in ("prediction", "label"):
        if name in event:
            event[name] = _answer(event[name])
    try:
        return _dump(event)
    except Exception:  # noqa: BLE001 - whatever a value does, the others are kept
        return _dump(_kept(event, DEEPEST))


def id_text(value: object) -> str:
    """An id as the text that Telltale keeps it by. Empty where it is None.

    >>> id_text(7), id_text(7.0), id_text("7"), id_text(None)
    ('7', '7', '7', '')
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(float(value))
    return str(value)


def described(error: BaseException) -> str:
    """What an error says of itself."""
    try:
        return f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
    except Exception:  # noqa: BLE001 - an error that cannot say what it is
        return type(error).__name__


def feature_values(features: object) -> dict[Any, Any]:
    """A row's features by name, copied, as the pod may go on to change them. Raises TypeError where they have no names.

    A mapping, a pandas row, a named tuple, a dataclass or a pydantic model.
    """
    if isinstance(features, Mapping):
        return dict(features)
    for method in ("model_dump", "_asdict", "to_dict"):
        if callable(found := getattr(features, method, None)):
            return dict(found())
    if dataclasses.is_dataclass(features) and not isinstance(features, type):
        return {f.name: getattr(features, f.name) for f in dataclasses.fields(features)}
    raise TypeError(f"features are of type {type(features).__name__}, which has no names; give a dict")


def _dump(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def _answer(given: Any) -> object:
    """What a model gave for one row: an array with one element stands for that element."""
    if isinstance(given, _PLAIN):
        return given
    try:
        answer = given.tolist()
    except Exception:  # noqa: BLE001 - no array, then; encoded as what it is
        return given
    while type(answer) is list and len(answer) == 1:
        answer = answer[0]
    return answer


def _known(value: object) -> object:
    """What a value that JSON does not know means."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None:
        return _from_numpy(value, kind)
    if type(value).__name__ in MISSING_TYPES:
        return None
    for kinds, plain in _MEANINGS:
        if isinstance(value, kinds):
            return plain(value)
    return _from_library(value)


def _from_numpy(value: Any, kind: str) -> object:
    """Looked at first: a row of NumPy's numbers is common, and the other questions take long."""
    if kind in "mM" and not value.shape:
        return None if str(value) == "NaT" else str(value)
    return value.tolist()


def _from_library(value: Any) -> object:
    """Of PyTorch, Polars, pydantic and the like, by what their values can do."""
    for method in ("tolist", "to_list", "model_dump", "to_dict"):
        if callable(found := getattr(value, method, None)):
            return found()
    if dataclasses.is_dataclass(value):
        return feature_values(value)
    return _placeholder(value)


def _kept(value: object, depth: int) -> object:
    """The same with every part that cannot be encoded replaced by a note of its type."""
    if isinstance(value, dict) and depth:
        return {_key(k): _kept(v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [_kept(v, depth - 1) for v in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    try:
        _dump(value)
    except Exception:  # noqa: BLE001 - a value may raise anything when it is looked at
        return _placeholder(value)
    return value


def _key(key: object) -> str:
    try:
        return str(key).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - see above
        return _placeholder(key)


def _placeholder(value: object) -> str:
    return f"<{type(value).__name__}>"


_PLAIN = (dict, str, int, float, list, type(None))
_MEANINGS: Any = (
    (Enum, lambda v: v.value),
    ((datetime, date, time), lambda v: v.isoformat()),
    (timedelta, lambda v: v.total_seconds()),
    ((UUID, PurePath), str),
    ((bytes, bytearray), lambda v: v.decode("utf-8", "replace")),
    (AbstractSet, list),
    (Mapping, dict),
    (numbers.Integral, int),
    (numbers.Number, float),  # Decimal and Fraction; of a complex number nothing is meant
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_known)
