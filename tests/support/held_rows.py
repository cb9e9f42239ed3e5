"""Predictions in columns as rows, to hold two ways of reading against each other."""

from __future__ import annotations

import math
from typing import Any

from monitor.columns import PredictionColumns


def by_row(columns: PredictionColumns | None) -> dict[int, dict[str, Any]]:
    """What each row holds, in a form that can be compared."""
    if columns is None:
        return {}
    found: dict[str, list[Any]] = {
        "at": columns.at.tolist(),
        "weight": columns.weight.tolist(),
        "failed": columns.failed.tolist(),
        "score": [None if math.isnan(s) else s for s in columns.score.tolist()],
        "label": columns.label.to_list(),
        "extras": columns.extras,
        "undeclared": columns.undeclared.tolist(),
        "origin": columns.origin.tolist(),
    }
    found |= {f"text {n}": t.to_list() for n, t in columns.texts.items()}
    found |= {f"segment {n}": t.to_list() for n, t in columns.segments.items()}
    for name, column in columns.features.items():
        found[f"feature {name}"] = column.values.to_list()
        for state in ("not_finite", "wrong_kind"):
            rows = set(getattr(column, state).tolist())
            found[f"{state} {name}"] = [row in rows for row in range(len(columns))]
    held = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    return dict(zip(columns.row.tolist(), held, strict=True))
