"""Electricity in New South Wales and Victoria (Elec2, Harries 1999) as a model's log.

Victoria's market opened on 5 May 1997: ``vicprice``, ``vicdemand`` and ``transfer`` were constant before that.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

FILE = Path(os.environ.get("TELLTALE_TEST_DATA", "/nowhere")) / "elec.csv.gz"
MISSING = "elec.csv.gz is not in the folder that TELLTALE_TEST_DATA names"
FIRST = datetime(1996, 5, 7, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
LABEL_DELAY = timedelta(days=2)
ROWS_A_WEEK = 7 * 48
TRAINING_DAYS = 60
CHANGED_ROW = 17_424
CHANGED = {"vicprice", "vicdemand", "transfer"}
FEATURES = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
SERVERS = ("sydney", "newcastle", "wollongong")
MODEL = "price-up"
SPEC: dict[str, Any] = {
    "features": dict.fromkeys(FEATURES, "numeric"),
    "label_delay": "2d",
    "windows": ["1w"],
    "reference": {"window": {"start": FIRST.isoformat(), "end": (FIRST + timedelta(days=TRAINING_DAYS)).isoformat()}},
    "timezone": "Australia/Sydney",
}


def read_table() -> pl.DataFrame:
    return pl.read_csv(gzip.decompress(FILE.read_bytes()))


def answers_to(table: pl.DataFrame) -> NDArray[np.int64]:
    """What a model trained on the first 60 days says of every row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = table.select(FEATURES).to_numpy()
    known = TRAINING_DAYS * 48
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(rows[:known], table["class"].to_numpy()[:known])
    return np.asarray(model.predict(rows), np.int64)


def events(table: pl.DataFrame, answers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """The prediction of every row, and its label two days later, row by row."""
    for i, row in enumerate(table.iter_rows(named=True)):
        at = FIRST + HALF_HOUR * i
        base = {"model": MODEL, "prediction_id": f"row-{i}"}
        yield {
            **base,
            "type": "prediction",
            "version": "1",
            "server": SERVERS[i % 3],
            "timestamp": at.isoformat(),
            "features": {name: row[name] for name in FEATURES},
            "prediction": int(answers[i]),
        }
        yield {**base, "type": "label", "label": row["class"], "timestamp": (at + LABEL_DELAY).isoformat()}
