"""Runs in NannyML's environment: its values, its time.

``in_nannyml.py values FILE`` | ``preset ROWS COLUMNS``; a line of JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import nannyml as nml
import numpy as np
import pandas as pd

NUMERIC = ("jensen_shannon", "hellinger", "wasserstein", "kolmogorov_smirnov")
LEVELS = ("jensen_shannon", "hellinger", "l_infinity", "chi2")


def values(path: str) -> dict[str, float]:
    """What it gives for each case of the file as one chunk, by ``case/method``."""
    found = {}
    with np.load(path) as cases:
        for case in sorted({name.partition("/")[0] for name in cases}):
            reference, current = (_frame(cases[f"{case}/{side}"]) for side in ("reference", "current"))
            text = reference["x"].dtype == object
            methods = {"categorical_methods" if text else "continuous_methods": list(LEVELS if text else NUMERIC)}
            calculator = nml.UnivariateDriftCalculator(column_names=["x"], chunk_size=len(current), **methods)
            chunks = calculator.fit(reference).calculate(current).filter(period="analysis").to_df()
            for method in LEVELS if text else NUMERIC:
                found[f"{case}/{method}"] = float(chunks["x", method, "value"].iloc[0])
    return found


def preset(rows: int, columns: int) -> dict[str, float]:
    """CPU seconds of its univariate drift with defaults on two tables of normal numbers."""
    rng = np.random.default_rng(2)
    names = [f"f{i}" for i in range(columns)]
    first, second = (pd.DataFrame({n: rng.normal(size=rows) for n in names}) for _ in range(2))
    started = time.process_time()
    nml.UnivariateDriftCalculator(column_names=names).fit(first).calculate(second)
    return {"cpu_seconds": time.process_time() - started}


def scores(path: str) -> dict[str, list[float]]:
    """The default statistic of each chunk of each series; under ``/missing/`` how far the missing rate is off."""
    found = {}
    with np.load(path) as data:
        for name in (name for name in data if not name.endswith("/reference")):
            reference, chunks = data[f"{name}/reference"], data[name]
            if "/missing/" in name:
                found[name] = np.abs(np.isnan(chunks).mean(axis=1) - np.isnan(reference).mean()).tolist()
                continue
            both = (reference, chunks.ravel())
            if "/levels/" in name:
                both = tuple(rows.astype(int).astype(str) for rows in both)
            before, after = (pd.DataFrame({"x": rows}) for rows in both)
            calculator = nml.UnivariateDriftCalculator(column_names=["x"], chunk_size=chunks.shape[1])
            result = calculator.fit(before).calculate(after).filter(period="analysis").to_df()
            found[name] = result["x", "jensen_shannon", "value"].astype(float).tolist()
    return found


def _frame(column: np.ndarray[Any, np.dtype[Any]]) -> pd.DataFrame:
    """Text that is empty is missing; numbers that are not finite are left out, as it fails on them."""
    if column.dtype.kind == "U":
        return pd.DataFrame({"x": pd.Series([text or None for text in column.tolist()], dtype=object)})
    return pd.DataFrame({"x": column[np.isfinite(column)]})


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(
        json.dumps(preset(*map(int, rest)) if what == "preset" else {"values": values, "scores": scores}[what](*rest))
    )
