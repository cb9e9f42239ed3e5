"""How often one changed feature of 25 is found, at family-wise 5 %, against what research §3.2 wants."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.quality.frames import (
    Categorical,
    Feature,
    Floats,
    Rng,
    fitted,
    lognormal,
    normal,
    probabilities,
    window,
)
from benchmarks.quality.table import Line
from detectors.drift import combined_p
from detectors.scores import Case, scores_of

FEATURES = 25
ALPHA = 0.05 / FEATURES
REFERENCE = 10_000
WINDOWS = (500, 2_000, 10_000, 50_000)
REPETITIONS = 2_000
PEER_REPETITIONS = 400
"""Behind each number of the prototype's column."""
SEED = 20_600
LOGNORMAL_SD = math.sqrt((math.e - 1) * math.e)


class Change(NamedTuple):
    """wanted: the share found, for each of WINDOWS; None: nothing is wanted."""

    name: str
    before: Feature
    after: Feature
    wanted: tuple[float | None, ...]


def _tenth(share: float) -> Categorical:
    return Categorical("x", 10, given=(share, *[(1 - share) / 9] * 9))


CHANGES = (
    Change("mean +0.05 sd", normal(), normal(0.05), (None, 0.08, 0.41, 0.76)),
    Change("mean +0.1 sd", normal(), normal(0.1), (0.09, 0.69, 1.0, 1.0)),
    Change("mean +0.2 sd", normal(), normal(0.2), (0.74, 1.0, 1.0, 1.0)),
    Change("variance x1.2", normal(), normal(sd=math.sqrt(1.2)), (0.15, 0.80, 1.0, 1.0)),
    Change("lognormal, mean +0.05 sd", lognormal(), lognormal(0.05 * LOGNORMAL_SD), (0.60, 1.0, 1.0, 1.0)),
    Change("a level of ten, 5 to 8 %", _tenth(0.05), _tenth(0.08), (0.20, 0.90, 1.0, 1.0)),
    Change("missing 1 to 3 %", normal(missing=0.01), normal(missing=0.03), (0.50, 1.0, 1.0, 1.0)),
)


def lines() -> Iterator[Line]:
    """A line for each change and size; the rate without a change, in the same runs, says at which level that is."""
    rng = np.random.default_rng(SEED)
    unchanged = np.zeros(len(WINDOWS))
    for change in CHANGES:
        rates = found(rng, change.before, change.after)
        unchanged += found(rng, change.before, change.before) / len(CHANGES)
        for rows, wanted, rate in zip(WINDOWS, change.wanted, rates.tolist(), strict=True):
            where = f"power at {rows:,} rows against {REFERENCE:,}: {change.name}"
            if wanted is None:
                yield Line(where, "", f"{rate:.3f}")
            else:
                yield Line(where, f"{wanted:.2f}", f"{rate:.3f}", rate >= wanted - _error(rows, wanted))
    for rows, rate in zip(WINDOWS, unchanged.tolist(), strict=True):
        error = math.sqrt(ALPHA / REPETITIONS / len(CHANGES)) * FEATURES
        result = f"{100 * _family_wise(rate):.1f} % (error {100 * error:.1f} %)"
        yield Line(f"the same without a change, as any of {FEATURES}: {rows:,} rows", "5 %", result)


def found(rng: Rng, before: Feature, after: Feature, repetitions: int = REPETITIONS) -> Floats:
    """The share of windows, for each of WINDOWS, in which the feature's p-value is at most 5 % / 25."""
    alarms = np.zeros(len(WINDOWS))
    for _ in range(repetitions):
        layout, reference = fitted([before], rng, REFERENCE)
        cells, baseline = layout.features[0], reference.astype(np.float64)
        of = probabilities([after], layout)
        drawn = [window(of, rng, rows)[0].astype(np.float64) for rows in WINDOWS]
        alarms += [combined_p(scores) <= ALPHA for scores in scores_of([Case(cells, baseline, c) for c in drawn])]
    return alarms / repetitions


def _error(rows: int, wanted: float) -> float:
    """Two standard errors of the difference; 1.00 of 400 may be 399. At 500 rows what is wanted is a bound."""
    spread = max(wanted * (1 - wanted), 1 / PEER_REPETITIONS)
    return 2 * math.sqrt(spread * (1 / REPETITIONS + (0 if rows == WINDOWS[0] else 1 / PEER_REPETITIONS)))


def _family_wise(rate: float) -> float:
    return 1 - (1 - rate) ** FEATURES
