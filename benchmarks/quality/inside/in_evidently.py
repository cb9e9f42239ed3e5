"""Runs in evidently's environment: its values, its time, its statistics window by window.

``in_evidently.py values FILE`` | ``preset ROWS COLUMNS`` | ``scores FILE``; a line of JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType
from evidently.metrics import ValueDrift
from evidently.presets import DataDriftPreset

NUMERIC = ("psi", "ks", "wasserstein", "jensenshannon", "hellinger")
LEVELS = ("psi", "jensenshannon", "hellinger", "TVD", "chisquare", "g_test")


def values(path: str) -> dict[str, float]:
    """What it gives for each case of the file, by ``case/method``."""
    found = {}
    with np.load(path) as cases:
        for case in sorted({name.partition("/")[0] for name in cases}):
            reference, current = (_frame(cases[f"{case}/{side}"]) for side in ("reference", "current"))
            text = reference["x"].dtype == object
            methods = [m for m in (LEVELS if text else NUMERIC) if m != "g_test" or len(reference) == len(current)]
            definition = DataDefinition(**{"categorical_columns" if text else "numerical_columns": ["x"]})
            both = (Dataset.from_pandas(frame, definition) for frame in (current, reference))
            report = Report([ValueDrift(column="x", method=method) for method in methods]).run(*both).dict()
            for method, metric in zip(methods, report["metrics"], strict=True):
                found[f"{case}/{method}"] = float(metric["value"])
    return found


def preset(rows: int, columns: int) -> dict[str, float]:
    """CPU seconds of its preset on two tables of normal numbers."""
    rng = np.random.default_rng(2)
    names = [f"f{i}" for i in range(columns)]
    first, second = (pd.DataFrame({n: rng.normal(size=rows) for n in names}) for _ in range(2))
    definition = DataDefinition(numerical_columns=names)
    started = time.process_time()
    reference, current = (Dataset.from_pandas(frame, definition) for frame in (first, second))
    Report([DataDriftPreset()]).run(current, reference).dict()
    return {"cpu_seconds": time.process_time() - started}


def scores(path: str) -> dict[str, list[float]]:
    """The drift score of each chunk of each series of the file, as its preset has it for over 1,000 reference rows."""
    found = {}
    with np.load(path) as data:
        for name in (name for name in data if not name.endswith("/reference")):
            levels = "/levels/" in name
            test, kind = (
                (jensenshannon_stat_test, ColumnType.Categorical)
                if levels
                else (wasserstein_stat_test, ColumnType.Numerical)
            )
            reference = pd.Series(data[f"{name}/reference"]).dropna()
            found[name] = [float(test(reference, pd.Series(c).dropna(), kind, None).drift_score) for c in data[name]]
    return found


def _frame(column: np.ndarray[Any, np.dtype[Any]]) -> pd.DataFrame:
    """Text that is empty is missing."""
    if column.dtype.kind == "U":
        return pd.DataFrame({"x": pd.Series([text or None for text in column.tolist()], dtype=object)})
    return pd.DataFrame({"x": column})


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(
        json.dumps(preset(*map(int, rest)) if what == "preset" else {"values": values, "scores": scores}[what](*rest))
    )
