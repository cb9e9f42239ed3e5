"""Windows without drift, independent rows, 25 features: the share with any alarm at family-wise 5 %."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.frames import (
    FEATURES,
    Counts,
    Floats,
    Rng,
    counted,
    fitted,
    fitted_to_rows,
    probabilities,
    window,
)
from benchmarks.quality.table import Line
from detectors.compare import ALL_ROWS
from detectors.drift import combined_p, drift_findings
from detectors.finding import Subject
from detectors.layout import Layout
from detectors.multiplicity import holm
from detectors.scores import Case, scores_of

ALPHA = 0.05
CELL = (0.035, 0.065)
MEAN = (0.045, 0.055)
WINDOWS = (500, 2_000, 10_000, 50_000)
REFERENCES = (1_000, 10_000)
REPETITIONS = 2_000
FIXED_REFERENCES, WINDOWS_OF_EACH = 100, 50
BY_ROWS = ((1_000, 500), (1_000, 2_000))
BY_ROWS_REPETITIONS = 500
SEED = 20_601


def lines() -> Iterator[Line]:
    """Cells of the table, their mean, what fixed references give, and the same through rows."""
    rates = {m: new_references(np.random.default_rng([SEED, m]), m) for m in REFERENCES}
    for m, of in rates.items():
        for n, rate in zip(WINDOWS, of.tolist(), strict=True):
            yield _line(f"no drift, {m:,} reference rows, windows of {n:,}: any alarm", CELL, rate)
    yield _line("no drift: mean of these cells", MEAN, float(np.mean([*rates.values()])))
    for m in REFERENCES:
        for n in WINDOWS:
            yield _fixed_line(m, n, fixed_references(np.random.default_rng([SEED, m, n]), m, n))
    for m, n in BY_ROWS:
        rate = by_rows(np.random.default_rng([SEED, m, n, 1]), m, n)
        error = math.sqrt(ALPHA * (1 - ALPHA) / BY_ROWS_REPETITIONS)
        result = f"{100 * rate:.1f} % (error {100 * error:.1f} %)"
        yield Line(f"no drift, counted from rows, {m:,} reference rows, windows of {n:,}", "", result)


def new_references(rng: Rng, m: int, repetitions: int = REPETITIONS) -> Floats:
    """The share with any alarm for each of WINDOWS; the four windows of a repetition share its reference."""
    alarms = np.zeros(len(WINDOWS))
    for _ in range(repetitions):
        layout, reference = fitted(FEATURES, rng, m)
        of = probabilities(FEATURES, layout)
        alarms += any_alarm(layout, reference, [window(of, rng, n)[0] for n in WINDOWS])
    return alarms / repetitions


def fixed_references(rng: Rng, m: int, n: int) -> Floats:
    """For each of some references the share of windows against it with any alarm."""
    rates = []
    for _ in range(FIXED_REFERENCES):
        layout, reference = fitted(FEATURES, rng, m)
        windows = window(probabilities(FEATURES, layout), rng, n, WINDOWS_OF_EACH)
        rates.append(any_alarm(layout, reference, windows).mean())
    return np.array(rates)


def by_rows(rng: Rng, m: int, n: int) -> float:
    """The share with any alarm where references and windows are rows, and the findings are those of the product."""
    alarms = 0
    for _ in range(BY_ROWS_REPETITIONS):
        layout, reference = fitted_to_rows(FEATURES, rng, m)
        current = counted(FEATURES, layout, rng, n)
        found = drift_findings(ALL_ROWS, Subject(), "drift", "reference", layout, reference, current, 200)
        alarms += bool((holm([f.p_value for f in found if f.p_value is not None]) <= ALPHA).any())
    return alarms / BY_ROWS_REPETITIONS


def any_alarm(layout: Layout, reference: Counts, windows: Iterable[Counts]) -> NDArray[np.bool_]:
    """Whether each window has an alarm at family-wise 5 %."""
    of = [(cells, layout.spans[cells.name]) for cells in layout.features]
    cases = [
        Case(cells, reference[span].astype(np.float64), current[span].astype(np.float64))
        for current in windows
        for cells, span in of
    ]
    p_values = np.array([combined_p(scores) for scores in scores_of(cases)]).reshape(-1, len(of))
    return np.array([(holm(of_window) <= ALPHA).any() for of_window in p_values])


def _line(measure: str, between: tuple[float, float], rate: float) -> Line:
    low, high = between
    return Line(measure, f"{100 * low:.1f} to {100 * high:.1f} %", f"{100 * rate:.2f} %", low <= rate <= high)


def _fixed_line(m: int, n: int, rates: Floats) -> Line:
    by_chance = np.random.default_rng(SEED).binomial(WINDOWS_OF_EACH, ALPHA, 100_000) / WINDOWS_OF_EACH
    expected, found = (100 * np.quantile(of, 0.95) for of in (by_chance, rates))
    result = f"95 % of references: at most {found:.0f} % (chance alone: {expected:.0f} %)"
    return Line(f"fixed references of {m:,} rows, windows of {n:,}: any alarm", "", result)
