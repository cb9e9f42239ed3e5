"""Random disjoint splits of real rows, which have not drifted: the census data (Kohavi 1996), both files together."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.table import Line
from detectors.compare import ALL_ROWS
from detectors.drift import drift_findings
from detectors.finding import Subject
from detectors.layout import Column, Kind, fit_layout
from detectors.multiplicity import holm

ALPHA = 0.05
BETWEEN = (0.035, 0.065)
SIZES = ((10_000, 5_000), (4_000, 16_000), (2_000, 500))
"""Rows of the reference and of the window."""
REPETITIONS = 1_000
SEED = 20_602
FILES = ("adult_train.csv.gz", "adult_test.csv.gz")


def lines() -> Iterator[Line]:
    """A line for each pair of sizes, and their mean."""
    folder = Path(os.environ.get("TELLTALE_TEST_DATA", ""))
    if not all((folder / name).exists() for name in FILES):
        reason = f"skipped: {' and '.join(FILES)} are not in the folder that TELLTALE_TEST_DATA names"
        yield Line("adult, random splits: any alarm", _wanted(), reason)
        return
    rows = _pooled(folder)
    rng = np.random.default_rng(SEED)
    rates = []
    for m, n in SIZES:
        rates.append(false_alarms(rows, rng, m, n))
        measure = f"adult, random splits: {m:,} of {rows.height:,} rows against other {n:,}: any alarm"
        yield Line(measure, _wanted(), f"{100 * rates[-1]:.1f} %", BETWEEN[0] <= rates[-1] <= BETWEEN[1])
    yield Line("adult, random splits: mean of these", _wanted(), f"{100 * float(np.mean(rates)):.1f} %")


def false_alarms(rows: pl.DataFrame, rng: np.random.Generator, m: int, n: int) -> float:
    """The share of splits in which any of the 14 features has an adjusted p-value of at most 5 %."""
    alarms = 0
    for _ in range(REPETITIONS):
        dealt = rows[rng.permutation(rows.height)[: m + n]]
        reference, current = ({s.name: Column.of(s) for s in part} for part in (dealt[:m], dealt[m:]))
        kinds = {s.name: Kind.CATEGORICAL if s.dtype == pl.String else Kind.NUMERIC for s in rows}
        ids = [f"{i}" for i in rng.integers(1 << 60, size=m)]
        layout, counts = fit_layout({name: (kinds[name], column) for name, column in reference.items()}, ids, {})
        found = drift_findings(ALL_ROWS, Subject(), "drift", "reference", layout, counts, layout.count(current), 200)
        alarms += bool((holm([f.p_value for f in found if f.p_value is not None]) <= ALPHA).any())
    return alarms / REPETITIONS


def _pooled(folder: Path) -> pl.DataFrame:
    parts = [gzip.decompress((folder / name).read_bytes()).replace(b", ", b",").strip() for name in FILES]
    return pl.concat([_frame(part) for part in parts])


def _frame(text: bytes) -> pl.DataFrame:
    """The 14 features; the last column is the label."""
    return pl.read_csv(io.BytesIO(text), has_header=False, null_values=["?"])[:, :-1]


def _wanted() -> str:
    return f"{100 * BETWEEN[0]:.1f} to {100 * BETWEEN[1]:.1f} %"
