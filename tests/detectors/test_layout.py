"""Cells of features: where each value goes, and how a layout is made from reference rows."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as some

from detectors.layout import (
    LATENCY_BINS,
    MAX_LEVELS,
    Column,
    FeatureCells,
    Kind,
    Layout,
    LayoutError,
    categorical_cells,
    fit_layout,
    numeric_cells,
)

numbers = some.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
values = (
    some.none() | some.floats(min_value=-1e300, max_value=1e300) | some.sampled_from([math.nan, math.inf, -math.inf])
)


def counts(cells: FeatureCells, rows: pl.Series) -> dict[str, int]:
    """Occupied cells by their label."""
    counted = Layout((cells,)).count({cells.name: Column.of(rows)})
    return {label: int(n) for label, n in zip(cells.labels, counted, strict=True) if n}


@given(some.lists(numbers, min_size=1, max_size=300), some.lists(values, max_size=50))
def test_every_number_is_in_the_cell_that_its_label_names(reference: list[float], window: list[float | None]) -> None:
    cells = numeric_cells("x", pl.Series(reference))
    low, high = min(reference), max(reference)

    def expected(x: float | None) -> int:
        if x is None or not math.isfinite(x):
            return cells.state("missing" if x is None else "not_finite")
        if x < low:
            return 0
        if x > high:
            return cells.ordered - 1
        if cells.points:
            return 1 + cells.points.index(x) if x in cells.points else cells.ordered
        return sum(edge <= x for edge in cells.edges)

    column = Column.of(pl.Series(window, dtype=pl.Float64))
    assert cells.cells(column).tolist() == [expected(x) for x in window]


@given(
    some.lists(some.floats(-1e6, 1e6), min_size=2, max_size=40, unique=True),
    some.floats(min_value=1e-3, max_value=1e3),
)
def test_numbers_right_beside_an_edge_or_a_point_are_on_the_right_side_of_it(steps: list[float], factor: float) -> None:
    ends = tuple(sorted({round(step) * factor for step in steps}))
    places = np.array([*ends, *np.nextafter(ends, -np.inf), *np.nextafter(ends, np.inf), -1e300, 1e300])
    column = Column.of(pl.Series(places))
    bins = FeatureCells("x", Kind.NUMERIC, edges=(*ends, math.inf))
    assert bins.cells(column).tolist() == [sum(end <= x for end in ends) for x in places.tolist()]
    points = FeatureCells("x", Kind.NUMERIC, points=ends)
    found = [
        x for x, cell in zip(places.tolist(), points.cells(column).tolist(), strict=True) if cell == points.ordered
    ]
    assert found == [x for x in places.tolist() if ends[0] < x < ends[-1] and x not in ends]
    even = FeatureCells("x", Kind.NUMERIC, edges=ends)
    assert even.cells(column).tolist() == bins.cells(column).tolist()


@given(some.lists(numbers, min_size=1, max_size=300))
def test_the_reference_itself_has_nothing_unseen(reference: list[float]) -> None:
    cells = numeric_cells("x", pl.Series(reference))
    counted = Layout((cells,)).count({"x": Column.of(pl.Series(reference))})
    assert counted.sum() == len(reference)
    assert counted[list(cells.unseen)].sum() == 0


def test_bins_of_a_continuous_feature_hold_about_the_same_number_of_rows() -> None:
    rows = pl.Series(np.random.default_rng(1).lognormal(0, 3, 3_200))
    cells = numeric_cells("x", rows)
    counted = Layout((cells,)).count({"x": Column.of(rows)})
    assert len(cells.edges) == 33
    assert counted[1:33].min() >= 99
    assert counted[1:33].max() <= 101


def test_levels_others_and_new_ones() -> None:
    reference = pl.Series([f"level {i}" for i in range(MAX_LEVELS + 5) for _ in range(100 - i)])
    cells = categorical_cells("c", reference)
    assert len(cells.levels) == MAX_LEVELS
    assert len(cells.others) == 5
    window = pl.Series(["level 0", "level 52", "never seen", None])
    assert counts(cells, window) == {"level 0": 1, "other": 1, "new_level": 1, "missing": 1}


def test_a_feature_may_be_called_rows() -> None:
    assert categorical_cells("rows", pl.Series("rows", ["b", "a", "b"])).levels == ("b", "a")


def test_scores_outside_zero_and_one_are_of_a_wrong_kind() -> None:
    score = FeatureCells("s", Kind.SCORE)
    found = counts(score, pl.Series([0.0, 0.004, 0.5, 1.0, 1.01, -0.2, None]))
    assert found == {"0.00 to 0.01": 2, "0.50 to 0.51": 1, "0.99 to 1.00": 1, "missing": 1, "wrong_kind": 2}


def test_latency_cells_grow_by_four_percent_and_keep_the_extremes() -> None:
    latency = FeatureCells("l", Kind.LATENCY)
    cells = latency.cells(Column.of(pl.Series([0.0, 0.01, 1.0, 1.041, 1e300, -1.0])))
    assert cells[[0, 1, 4, 5]].tolist() == [0, 0, LATENCY_BINS - 1, latency.state("wrong_kind")]
    assert cells[3] == cells[2] + 1


def test_adding_counts_of_parts_gives_the_counts_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    rows = {"x": pl.Series(rng.normal(size=500)), "c": pl.Series(rng.choice(["a", "b"], 500))}
    layout = Layout((numeric_cells("x", rows["x"]), categorical_cells("c", rows["c"])))
    whole = {name: Column.of(series) for name, series in rows.items()}
    mask = rng.random(500) < 0.3
    parts = [{name: column.take(part) for name, column in whole.items()} for part in (mask, ~mask)]
    assert (layout.count(parts[0]) + layout.count(parts[1])).tolist() == layout.count(whole).tolist()


def test_rows_that_are_taken_keep_their_states() -> None:
    column = Column.of(pl.Series([1.0, math.nan, None, 2.0, math.inf]))
    taken = column.take(np.array([False, True, True, True, True]))
    assert taken.not_finite.tolist() == [0, 3]
    assert taken.values.to_list() == [None, None, 2.0, None]


def test_a_layout_survives_its_json() -> None:
    layout = Layout(
        (
            FeatureCells("x", Kind.NUMERIC, edges=(0.1, 0.2, 1e300)),
            FeatureCells("k", Kind.NUMERIC, points=(-1.0, 3.0)),
            FeatureCells("ć", Kind.CATEGORICAL, levels=("ä", "b"), others=("",)),
            FeatureCells("l", Kind.LATENCY),
        )
    )
    again = Layout.from_json(layout.to_json())
    assert again == layout
    assert again.id == layout.id
    assert Layout(layout.features[:1]).id != layout.id


def test_levels_are_chosen_and_counted_on_different_rows() -> None:
    rng = np.random.default_rng(3)
    rows = pl.Series(rng.zipf(1.5, 5_000).clip(max=2_000)).cast(pl.String)
    ids = [f"id{i}" for i in range(5_000)]
    layout, counted = fit_layout({"c": (Kind.CATEGORICAL, Column.of(rows))}, ids, {})
    assert 0.77 * 5_000 < counted.sum() < 0.83 * 5_000
    new_level = layout.features[0].unseen[0]
    assert counted[new_level] > 0


def test_a_layout_does_not_depend_on_the_order_of_the_reference() -> None:
    rng = np.random.default_rng(4)
    x, c = rng.normal(size=2_000), rng.zipf(1.5, 2_000).clip(max=2_000).astype(str)
    ids = np.array([f"id{i}" for i in range(2_000)])

    def fitted(order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[Layout, list[int]]:
        columns = {
            "x": (Kind.NUMERIC, Column.of(pl.Series(x[order]))),
            "c": (Kind.CATEGORICAL, Column.of(pl.Series(c[order]))),
        }
        layout, counted = fit_layout(columns, ids[order].tolist(), {})
        return layout, counted.tolist()

    assert fitted(np.arange(2_000)) == fitted(rng.permutation(2_000))


def test_rare_levels_in_a_small_reference_must_be_declared() -> None:
    rows = Column.of(pl.Series(["common"] * 300 + ["rare"]))
    ids = [str(i) for i in range(301)]
    with pytest.raises(LayoutError, match=r"'c'.*some of them rare, in 301 rows; name its levels"):
        fit_layout({"c": (Kind.CATEGORICAL, rows)}, ids, {})
    layout, counted = fit_layout({"c": (Kind.CATEGORICAL, rows)}, ids, {"c": ["common", "rare", "never"]})
    assert layout.features[0].levels == ("common", "rare", "never")
    assert counted.tolist() == [300, 1, 0, 0, 0, 0, 0]


def test_a_column_that_mostly_holds_one_value_has_a_cell_for_it_and_bins_for_the_rest() -> None:
    """Each window has other values than the reference among the few that are not 0; they are no unseen ones."""
    rng = np.random.default_rng(77)

    def mostly_zero(rows: int) -> pl.Series:
        return pl.Series(np.where(rng.random(rows) < 0.97, 0.0, rng.lognormal(size=rows)))

    cells = numeric_cells("gain", mostly_zero(1_000))
    assert not cells.points
    assert 0.0 in cells.edges
    counts = np.bincount(cells.cells(Column.of(mostly_zero(1_000))), minlength=cells.size)
    assert counts[cells.edges.index(0.0) + 1] > 900
    assert counts[list(cells.unseen)].sum() <= 5


@pytest.mark.parametrize("largest", [1.0, 1.7976931348623157e308])
def test_the_largest_number_is_within_the_last_bin(largest: float) -> None:
    values = pl.Series([largest] * 100 + [float(i) for i in range(100)])
    cells = numeric_cells("x", values)
    assert set(cells.cells(Column.of(values))).isdisjoint(cells.unseen)
