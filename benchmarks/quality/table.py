"""A line of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement.

    reached
        Whether what is wanted was reached. None: printed for comparison only, or skipped, as ``result`` says.
    """

    measure: str
    wanted: str
    result: str
    reached: bool | None = None
