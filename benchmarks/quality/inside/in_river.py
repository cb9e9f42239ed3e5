"""Runs in river's environment: when its detectors alarm on streams, tuned to a number of false alarms.

``in_river.py alarms FILE ALLOWED APART``; a line of JSON on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from river.drift import ADWIN, PageHinkley

Rows = np.ndarray[Any, np.dtype[np.float64]]
TRIALS = 6
DETECTORS: dict[str, tuple[Callable[[float], Any], float, float]] = {
    "ADWIN": (lambda delta: ADWIN(delta=delta), 1e-5, 1e-2),
    "Page-Hinkley": (lambda threshold: PageHinkley(threshold=threshold), 1_000.0, 50.0),
}
"""How one is made from the parameter that is tuned, and that parameter at its most and least strict."""


def alarms(path: str, allowed: int, apart: int) -> dict[str, Any]:
    """Per detector: the parameter, its false alarms, and the row of the first alarm after each change (-1: none)."""
    found = {}
    with np.load(path) as data:
        quiet = [data[name] for name in sorted(data) if name.startswith("quiet/")]
        changed = {name.partition("/")[2]: data[name] for name in data if name.startswith("changed/")}
        before, rows_per_hour = int(data["before"]), int(data["rows_per_hour"])
    for name, (make, strict, loose) in DETECTORS.items():
        best, best_false = strict, _false_alarms(make, strict, quiet, rows_per_hour, apart)
        low, high = np.log(strict), np.log(loose)
        for _ in range(TRIALS):
            middle = float(np.exp((low + high) / 2))
            false = _false_alarms(make, middle, quiet, rows_per_hour, apart)
            if false <= allowed:
                low, best, best_false = np.log(middle), middle, false
            else:
                high = np.log(middle)
        first = {
            kind: [_first_after(make(best), stream, before) for stream in streams] for kind, streams in changed.items()
        }
        found[name] = {"parameter": best, "false_alarms": best_false, "first": first}
    return found


def _false_alarms(
    make: Callable[[float], Any], parameter: float, quiet: Sequence[Rows], rows_per_hour: int, apart: int
) -> int:
    hours: set[int] = set()
    for stream in quiet:
        detector = make(parameter)
        for row, value in enumerate(stream.tolist()):
            detector.update(value)
            if detector.drift_detected:
                hours.add(row // rows_per_hour)
    counted: list[int] = []
    for hour in sorted(hours):
        if not counted or hour - counted[-1] > apart:
            counted.append(hour)
    return len(counted)


def _first_after(detector: Any, stream: Rows, before: int) -> int:
    for row, value in enumerate(stream.tolist()):
        detector.update(value)
        if detector.drift_detected and row >= before:
            return row - before
    return -1


if __name__ == "__main__":
    what, path, allowed, apart = sys.argv[1:]
    print(json.dumps(alarms(path, int(allowed), int(apart))))
