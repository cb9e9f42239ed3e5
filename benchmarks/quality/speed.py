"""CPU time of judging 25 features in windows of three lengths, from stored counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.quality.frames import FEATURES, fitted, probabilities, window
from benchmarks.quality.table import Line
from detectors.compare import ALL_ROWS
from detectors.drift import drift_findings
from detectors.finding import Subject

REFERENCE = 10_000
LENGTHS = 3
SMALL, LARGE = 10_000, 1_000_000
ROUNDS = 60
LIMIT_MS = 50.0
NO_SLOWER = 1.15
"""Of the least time of many rounds; below it, it is noise of a shared machine."""
SEED = 20_603


def lines() -> Iterator[Line]:
    """The least of many rounds, in turns, as others use the machine too."""
    rng = np.random.default_rng(SEED)
    layout, reference = fitted(FEATURES, rng, REFERENCE)
    windows = {rows: window(probabilities(FEATURES, layout), rng, rows, LENGTHS) for rows in (SMALL, LARGE)}
    least = dict.fromkeys(windows, float("inf"))
    for _ in range(ROUNDS):
        for rows, of_lengths in windows.items():
            started = time.process_time()
            for current in of_lengths:
                drift_findings(ALL_ROWS, Subject(), "drift", "reference", layout, reference, current, 200)
            least[rows] = min(least[rows], 1_000 * (time.process_time() - started))
    what = f"{len(FEATURES)} features x {LENGTHS} windows of"
    for rows, milliseconds in least.items():
        result = f"{milliseconds:.1f} ms CPU"
        yield Line(f"{what} {rows:,} events", f"< {LIMIT_MS:.0f} ms", result, milliseconds < LIMIT_MS)
    slower = least[LARGE] / least[SMALL]
    yield Line(f"{what} {LARGE:,} against {SMALL:,} events", "no slower", f"x {slower:.2f}", slower <= NO_SLOWER)
