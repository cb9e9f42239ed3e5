"""Faults of whole columns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from detectors.faults import fault
from detectors.layout import Column, FeatureCells, Kind, numeric_cells

rng = np.random.default_rng(5)
CELSIUS = rng.normal(15, 8, 20_000)
SHARE = rng.beta(2, 3, 20_000)
INCOME = rng.lognormal(3, 1, 20_000)


def named(before: np.ndarray, after: np.ndarray) -> str:
    cells = numeric_cells("x", pl.Series(before))
    counts = [
        np.bincount(cells.cells(Column.of(pl.Series(v))), minlength=cells.size).astype(float) for v in (before, after)
    ]
    return fault(cells, *counts)


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        (CELSIUS, CELSIUS[:5000], ""),
        (CELSIUS, CELSIUS[:5000] + 4, ""),
        (CELSIUS, CELSIUS[:5000] * 1.5, ""),
        (CELSIUS, np.full(5000, 15.0), "stuck"),
        (CELSIUS, CELSIUS[:5000] * 1.8 + 32, "units"),
        (CELSIUS * 1.8 + 32, CELSIUS[:5000], "units"),
        (CELSIUS, CELSIUS[:5000] * 1000, "units"),
        (SHARE, SHARE[:5000] * 100, ""),  # all above the range, as any new value would be: unseen
        (INCOME, INCOME[:5000] / 100, "units"),
        (INCOME, np.full(5000, 1e9), ""),
    ],
)
def test_a_fault_of_a_whole_column_is_told_from_a_shift(before: np.ndarray, after: np.ndarray, name: str) -> None:
    assert named(before, after) == name


def test_a_constant_is_not_stuck_where_it_always_was_one() -> None:
    flag = FeatureCells("flag", Kind.CATEGORICAL, levels=("no", "yes"))
    assert fault(flag, np.array([990.0, 10, 0, 0, 0, 0]), np.array([500.0, 0, 0, 0, 0, 0])) == ""
    assert fault(flag, np.array([700.0, 300, 0, 0, 0, 0]), np.array([500.0, 2, 0, 0, 80, 0])) == "stuck"
    assert fault(flag, np.array([700.0, 300, 0, 0, 0, 0]), np.array([0.0, 0, 0, 500, 0, 0])) == "", "renamed: unseen"
    assert fault(flag, np.array([700.0, 300, 0, 0, 0, 0]), np.array([0.0, 0, 0, 0, 500, 0])) == "", "missing"


def test_values_at_the_end_of_what_a_number_can_be_have_no_unit() -> None:
    huge = FeatureCells("huge", Kind.NUMERIC, edges=(-1.7e308, 0.0, 1.7e308))
    assert fault(huge, np.array([0.0, 900, 100, 0, 0, 0, 0]), np.array([0.0, 100, 900, 0, 0, 0, 0])) == ""
