"""Rows that are told apart by features together, and rows that are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from detectors.finding import Status, Window
from detectors.joint import Joint, joint_finding, tell_apart

Floats = NDArray[np.float64]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = Window("production", "fraud", NOON, NOON + timedelta(hours=1))


def numbers(values: Floats) -> pl.DataFrame:
    return pl.DataFrame({f"x{i}": column for i, column in enumerate(values.T)})


def tied(rng: Generator, rows: int, count: int, correlation: float) -> pl.DataFrame:
    """Normal numbers of which the first two hang together; each by itself is the same whatever the correlation."""
    values = rng.normal(size=(rows, count))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    return numbers(values)


def p_value(found: Joint) -> float:
    assert found.p_value is not None
    return found.p_value


def test_without_drift_one_in_twenty_is_at_or_below_5_percent() -> None:
    """Every run is exact, so the count is binomial: 3 to 20 of 200 with a chance of 0.998."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        then, now = (
            numbers(rng.normal(size=(120, 2))).with_columns(c=pl.Series(rng.integers(0, 3, 120)).cast(pl.String))
            for _ in range(2)
        )
        found = tell_apart(then, now, minimum_rows=100, permutations=19)
        alarms += p_value(found) <= 0.05
    assert 3 <= alarms <= 20


def test_windows_that_wander_are_not_taken_for_drift() -> None:
    """Of 40 quiet days at most 7 (chance 0.999); taken as independent rows, most of them look drifted."""
    alarms, alone = 0, 0
    of_day = np.repeat(np.arange(8), 200)
    for seed in range(40):
        rng = np.random.default_rng(1_000 + seed)
        days = [numbers(rng.normal(size=(200, 3)) + 0.25 * rng.normal(size=3)) for _ in range(9)]
        before = pl.concat(days[:8])
        alarms += p_value(tell_apart(before, days[8], of_day, permutations=39)) <= 0.05
        alone += p_value(tell_apart(before, days[8], permutations=39)) <= 0.05
    assert alarms <= 7
    assert alone >= 25


def test_a_change_is_found_among_windows_that_wander() -> None:
    rng = np.random.default_rng(4)
    days = [rng.normal(size=(300, 4)) + 0.1 * rng.normal(size=4) for _ in range(9)]
    days[8][:, 1] = 0.8 * days[8][:, 0] + 0.6 * days[8][:, 1]
    before = pl.concat(map(numbers, days[:8]))
    found = tell_apart(before, numbers(days[8]), np.repeat(np.arange(8), 300), permutations=199)
    assert p_value(found) <= 0.01
    assert found.windows == 8
    assert found.usual is not None
    assert found.auc is not None
    assert found.usual < found.auc
    assert found.parts[0].features == ("x0", "x1")


def test_too_few_other_windows_do_not_calibrate() -> None:
    rng = np.random.default_rng(4)
    tables = numbers(rng.normal(size=(400, 2))), numbers(rng.normal(size=(200, 2)))
    assert tell_apart(*tables, np.repeat(np.arange(4), 100), permutations=19) == tell_apart(*tables, permutations=19)


@pytest.mark.parametrize(("before", "now"), [(0.0, 0.5), (0.3, -0.3)])
def test_a_pair_that_hangs_together_otherwise_is_found_and_named(before: float, now: float) -> None:
    rng = np.random.default_rng(5)
    found = tell_apart(tied(rng, 1_000, 10, before), tied(rng, 1_000, 10, now), permutations=199)
    assert found.p_value == 1 / 200
    assert found.way == "pairs"
    assert [part.features for part in found.parts] == [("x0", "x1")]
    cell = found.parts[0].cell
    assert cell.cell.startswith("x0 in its ")
    assert abs(cell.share - cell.baseline_share) > 0.02


def test_a_number_that_goes_with_another_level_is_found_and_named() -> None:
    rng = np.random.default_rng(6)

    def rows(sign: int) -> pl.DataFrame:
        table = numbers(rng.normal(size=(800, 4)))
        high = (table["x2"].to_numpy() * sign > 0) ^ (rng.random(800) < 0.3)
        return table.with_columns(c=pl.Series(np.where(high, "a", "b")))

    found = tell_apart(rows(1), rows(-1), permutations=199)
    assert found.p_value == 1 / 200
    assert found.parts[0].features == ("c", "x2")
    assert "c = " in found.parts[0].cell.cell


def test_small_shifts_of_all_features_add_up() -> None:
    rng = np.random.default_rng(7)
    then, now = rng.normal(size=(3_000, 25)), rng.normal(size=(3_000, 25)) + 0.05
    found = tell_apart(numbers(then), numbers(now), permutations=99)
    assert found.p_value == 1 / 100
    assert found.way != "pairs"


def test_one_feature_that_moved_is_named_with_where_it_did() -> None:
    rng = np.random.default_rng(8)
    then, now = rng.normal(size=(1_000, 5)), rng.normal(size=(1_000, 5))
    now[:, 3] += 0.5
    found = tell_apart(numbers(then), numbers(now), permutations=99)
    assert [part.features for part in found.parts] == [("x3",)]
    assert found.parts[0].cell.cell in {"x3 in its lowest quarter", "x3 in its highest quarter"}


def test_the_order_of_rows_and_columns_does_not_matter() -> None:
    rng = np.random.default_rng(9)
    then, now = tied(rng, 400, 3, 0.0), tied(rng, 300, 3, 0.3)
    then = then.with_columns(c=pl.Series(rng.integers(0, 2, 400)).cast(pl.String))
    now = now.with_columns(c=pl.Series(rng.integers(0, 2, 300)).cast(pl.String))
    found = tell_apart(then, now, permutations=19)
    shuffled = tell_apart(then[rng.permutation(400)].select(reversed(then.columns)), now.reverse(), permutations=19)
    assert shuffled == found


def test_few_different_rows_are_no_problem() -> None:
    """Equal rows are told apart by nothing, so their order must not decide."""
    rng = np.random.default_rng(10)
    alarms = 0
    for _ in range(60):
        then, now = (pl.DataFrame({"c": rng.choice(["a", "b"], 200)}) for _ in range(2))
        found = tell_apart(then, now, permutations=19)
        assert found == tell_apart(then.reverse(), now.reverse(), permutations=19)
        alarms += p_value(found) <= 0.05
    assert alarms <= 9
    assert tell_apart(then, pl.DataFrame({"c": ["a"] * 180 + ["b"] * 20}), permutations=19).p_value == 1 / 20


def test_odd_columns_are_no_problem() -> None:
    rng = np.random.default_rng(11)
    table = tied(rng, 600, 3, 0.5).with_columns(
        constant=pl.lit(1.0),
        nothing=pl.lit(None),
        nan=pl.lit(np.nan),
        infinite=pl.Series(np.where(rng.random(600) < 0.1, np.inf, -np.inf)),
        huge=pl.Series(rng.normal(size=600) * 1e300),
        levels=pl.Series(rng.integers(0, 200, 600)).cast(pl.String),
        flag=pl.Series(rng.random(600) < 0.5),
        once=pl.Series([None] * 599 + [3.0]),
    )
    now = table.tail(300).with_columns(levels=pl.lit("unseen"), appeared=pl.lit("new"))
    found = tell_apart(table.head(300), now, permutations=39)
    assert found.status is Status.MEASURED
    assert found.p_value == 1 / 40
    assert "levels" in {name for part in found.parts for name in part.features}
    same = tell_apart(table.head(300), table.tail(300), permutations=39)
    assert p_value(same) > 0.05


def test_more_features_than_pairs_that_are_looked_at() -> None:
    rng = np.random.default_rng(12)
    found = tell_apart(tied(rng, 1_000, 60, 0.0), tied(rng, 1_000, 60, 0.5), permutations=39)
    assert found.p_value == 1 / 40
    assert found.parts[0].features == ("x0", "x1")


def test_missing_values_that_come_together_are_found() -> None:
    rng = np.random.default_rng(13)

    def rows(*, together: bool) -> pl.DataFrame:
        table = numbers(rng.normal(size=(800, 4)))
        first = pl.Series(rng.random(800) < 0.2)
        second = first if together else pl.Series(rng.random(800) < 0.2)
        return table.with_columns(
            x0=pl.when(~first).then(pl.col("x0")).fill_null(np.nan), x1=pl.when(~second).then(pl.col("x1"))
        )

    found = tell_apart(rows(together=False), rows(together=True), permutations=99)
    assert found.p_value == 1 / 100
    assert found.parts[0].features == ("x0", "x1")
    assert found.parts[0].cell.cell == "x0 missing and x1 missing"


def test_few_rows_or_nothing_that_varies_is_not_enough() -> None:
    few = tell_apart(pl.DataFrame({"x": [1.0] * 300}), pl.DataFrame({"x": [1.0] * 199}))
    assert few.status is Status.NOT_ENOUGH_DATA
    assert few.message == "199 rows against 300 in the baseline; 200 are needed on each side"
    constant = tell_apart(pl.DataFrame({"x": [1.0] * 300}), pl.DataFrame({"x": [1.0] * 200}))
    assert (constant.status, constant.message) == (
        Status.NOT_ENOUGH_DATA,
        "no feature has values or levels that differ in 20 rows",
    )
    finding = joint_finding(WINDOW, "other_windows", few)
    assert (finding.p_value, finding.severity, finding.message) == (None, 0.0, few.message)


def test_the_interval_holds_the_auc_that_is_there() -> None:
    """Of 40 intervals at least 33 hold the mean AUC of all runs (nominal 95 %)."""
    runs = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        then, now = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
        now[:, 0] += 0.5
        runs.append(tell_apart(numbers(then), numbers(now), permutations=19))
    mean = np.mean([run.auc for run in runs if run.auc is not None])
    assert sum(run.low <= mean <= run.high for run in runs if run.low is not None and run.high is not None) >= 33


def test_a_finding_says_what_stands_out() -> None:
    rng = np.random.default_rng(14)
    finding = joint_finding(WINDOW, "other_windows", tell_apart(tied(rng, 800, 4, 0.0), tied(rng, 800, 4, 0.7)))
    assert (finding.detector, finding.component, finding.baseline) == ("joint", "pairs", "other_windows")
    assert finding.severity > 1
    assert finding.value is not None
    assert finding.low is not None
    assert 0.5 < finding.low < finding.value
    assert finding.effects["x0 and x1"] > 0.5
    assert finding.contributions[0].cell.startswith("x0 in its ")
    assert "x0 and x1" in finding.message
