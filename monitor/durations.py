"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: object) -> object:
    """A duration as people write it.

    >>> parse_duration("90s") == timedelta(seconds=90), parse_duration("1.5h") == timedelta(minutes=90)
    (True, True)
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", value)
    if not match:
        raise ValueError(f"{value!r} is not a duration; write a number and s, m, h, d or w, such as 90s, 6h or 2d")
    try:
        return timedelta(seconds=float(match[1]) * UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"{value[:30]!r} is too long a duration") from None


def format_duration(value: timedelta) -> str:
    """A duration as ``parse_duration`` reads it.

    >>> format_duration(timedelta(hours=6)), format_duration(timedelta(seconds=90))
    ('6h', '90s')
    """
    seconds = value.total_seconds()
    unit = next((u for u in ("w", "d", "h", "m") if seconds and seconds % UNITS[u] == 0), "s")
    return f"{seconds / UNITS[unit]:g}{unit}"
