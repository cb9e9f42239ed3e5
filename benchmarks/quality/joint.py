"""Telling rows apart by features together: false alarms, power, the pair that is named, and CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.quality.table import Line
from detectors.joint import Joint, tell_apart

ALPHA = 0.05
LEAST, MOST = 0.035, 0.065
PERMUTATIONS = 99
Floats = NDArray[np.float64]
Tables = tuple[pl.DataFrame, pl.DataFrame]


def numbers(values: Floats) -> pl.DataFrame:
    return pl.DataFrame({f"x{i}": column for i, column in enumerate(values.T)})


def mixed(rng: Generator, rows: int, count: int) -> pl.DataFrame:
    """Numbers, of which some are missing, and features of 2, 10 and 200 levels."""
    table = numbers(rng.normal(size=(rows, count)))
    holes = pl.Series(rng.random(rows) < 0.05)
    levels = [pl.Series(f"c{n}", rng.zipf(1.5, rows) % n).cast(pl.String) for n in (2, 10, 200)]
    return table.with_columns(pl.when(~holes).then(pl.col("x0")), *levels)


def tied(rng: Generator, rows: int, count: int, correlation: float) -> pl.DataFrame:
    """Normal numbers, of which the first two hang together; each by itself is the same whatever the correlation."""
    values = rng.normal(size=(rows, count))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    return numbers(values)


def lines() -> Iterator[Line]:
    yield from null_lines()
    yield from wandering_lines()
    yield from power_lines()
    yield cost_line()


def null_lines() -> Iterator[Line]:
    for rows, count, repetitions in ((200, 2, 2_000), (300, 8, 1_000), (1_000, 8, 500)):
        alarms = share(lambda rng, n=rows, f=count: (mixed(rng, n, f), mixed(rng, n, f)), repetitions)  # type: ignore[misc]  # a default keeps the loop's value
        what = f"joint: no drift, {rows} rows a side, {count} numbers and 3 categories, windows found at 5 %"
        yield Line(what, "3.5 to 6.5 %", f"{alarms:.1%} of {repetitions}", LEAST <= alarms <= MOST)
    short = float(np.mean([shortcut(np.random.default_rng(i)) <= ALPHA for i in range(1_000)]))
    yield Line("joint: the same, had only held-out labels been permuted", "", f"{short:.1%} of 1,000")


def wandering_lines() -> Iterator[Line]:
    """Ten features whose means differ from day to day by 0.1 sd, ten days before, nothing happens."""
    of_day = np.repeat(np.arange(10), 300)
    p_values: dict[str, list[float]] = {"exchangeable": [], "alone": [], "found": [], "remembered": []}
    for i in range(300):
        rng = np.random.default_rng(50_000 + i)
        days = wandering(rng, memory=0.0)
        before = pl.concat(map(numbers, days[:10]))
        p_values["exchangeable"].append(tested(before, days[10], of_day))
        p_values["alone"].append(tested(before, days[10], None))
        days[10][:, 1] = 0.5 * days[10][:, 0] + np.sqrt(0.75) * days[10][:, 1]
        p_values["found"].append(tested(before, days[10], of_day))
        days = wandering(rng, memory=0.8)
        p_values["remembered"].append(tested(pl.concat(map(numbers, days[:10])), days[10], of_day))
    rates = {name: float(np.mean(np.array(p) <= ALPHA)) for name, p in p_values.items()}
    what = "joint: means that differ by 0.1 sd from day to day, 300 rows a day, 10 days before"
    right = rates["exchangeable"] <= MOST
    yield Line(f"{what}: days found at 5 %", "at most 6.5 %", f"{rates['exchangeable']:.1%} of 300", right)
    yield Line("joint: the same, rows taken as independent", "", f"{rates['alone']:.1%}")
    yield Line("joint: the same, each day remembers 0.8 of the one before", "", f"{rates['remembered']:.1%}")
    yield Line("joint: the same, correlation 0 to 0.5 in the last day: found", "", f"{rates['found']:.1%}")


def wandering(rng: Generator, memory: float) -> list[Floats]:
    mean = 0.1 * rng.normal(size=10)
    days = []
    for _ in range(11):
        mean = memory * mean + np.sqrt(1 - memory**2) * 0.1 * rng.normal(size=10)
        days.append(mean + rng.normal(size=(300, 10)))
    return days


def tested(before: pl.DataFrame, day: Floats, of_day: NDArray[np.int64] | None) -> float:
    return p_value(tell_apart(before, numbers(day), of_day, permutations=PERMUTATIONS))


def power_lines() -> Iterator[Line]:
    cases: tuple[tuple[str, float, int, tuple[str, ...], Callable[[Generator], Tables]], ...] = (
        ("correlation 0 to 0.5 in 2 of 10, 300 a side", 0.7, 60, ("x0", "x1"), lambda rng: flip(rng, 300, 10, 0, 0.5)),
        (
            "correlation 0 to 0.5 in 2 of 10, 1,000 a side",
            0.95,
            40,
            ("x0", "x1"),
            lambda rng: flip(rng, 1_000, 10, 0, 0.5),
        ),
        (
            "correlation 0.3 to -0.3 in 2 of 25, 1,000 a side",
            0.8,
            40,
            ("x0", "x1"),
            lambda rng: flip(rng, 1_000, 25, 0.3, -0.3),
        ),
        ("a number goes with a category, then against it, 1,000 a side", 0.95, 40, ("c", "x0"), against),
        ("mean +0.05 sd in each of 25, 5,000 a side", 0.95, 10, (), lambda rng: moved(rng, 5_000, 5_000, 25, 0.05)),
        (
            "mean +0.2 sd in 1 of 25, 1,000 against 9,000",
            0.5,
            20,
            ("x0",),
            lambda rng: moved(rng, 9_000, 1_000, 1, 0.2),
        ),
        (
            "mean +0.5 sd in 1 of 25, 1,000 against 9,000",
            0.95,
            20,
            ("x0",),
            lambda rng: moved(rng, 9_000, 1_000, 1, 0.5),
        ),
    )
    for name, wanted, repetitions, planted, make in cases:
        seeds = range(90_000, 90_000 + repetitions)
        runs = [tell_apart(*make(np.random.default_rng(seed)), permutations=PERMUTATIONS) for seed in seeds]
        found = [run for run in runs if p_value(run) <= ALPHA]
        named = [run.parts[0].features == planted for run in found if run.parts]
        right = f", named right {sum(named)} of {len(named)}" if planted else ""
        power = len(found) / repetitions
        yield Line(f"joint: {name}", f"≥ {wanted:.0%}", f"{power:.0%} of {repetitions}{right}", power >= wanted)
    yield Line("joint: NannyML's domain classifier, +0.5 sd, 1,000 against 10,000", "", "0 of 12; no drift: 0 of 12")
    yield Line("joint: NannyML's PCA reconstruction, +0.2 sd, chunks of 1,000", "", "52 %; no drift: 38 to 48 %")


def flip(rng: Generator, rows: int, count: int, before: float, now: float) -> Tables:
    return tied(rng, rows, count, before), tied(rng, rows, count, now)


def against(rng: Generator) -> Tables:
    tables = []
    for sign in (1, -1):
        table = numbers(rng.normal(size=(1_000, 10)))
        high = (table["x0"].to_numpy() * sign > 0) ^ (rng.random(1_000) < 0.4)
        tables.append(table.with_columns(c=pl.Series(np.where(high, "a", "b"))))
    return tables[0], tables[1]


def moved(rng: Generator, before: int, now: int, features: int, by: float) -> Tables:
    then, current = rng.normal(size=(before, 25)), rng.normal(size=(now, 25))
    current[:, :features] += by
    return numbers(then), numbers(current)


def cost_line() -> Line:
    rng = np.random.default_rng(1)
    tables = mixed(rng, 5_000, 22), mixed(rng, 5_000, 22)
    tell_apart(*tables, permutations=1)
    started = time.process_time()
    tell_apart(*tables)
    spent = time.process_time() - started
    return Line("joint: CPU seconds, 25 mixed features, 5,000 rows a side", "≤ 5", f"{spent:.1f}", spent <= 5)


def share(make: Callable[[Generator], Tables], repetitions: int) -> float:
    runs = (tell_apart(*make(np.random.default_rng(i)), permutations=PERMUTATIONS) for i in range(repetitions))
    return float(np.mean([p_value(run) <= ALPHA for run in runs]))


def p_value(found: Joint) -> float:
    assert found.p_value is not None, found.message  # noqa: S101 - of rows that are enough
    return found.p_value


def shortcut(rng: Generator) -> float:
    """The p-value of the quick way, with a discriminant of the simplest kind: differences of means, five folds."""
    values, label = rng.normal(size=(500, 8)), np.tile([-1.0, 1.0], 250)
    fold = np.arange(500) % 5
    scores = np.empty(500)
    for k in range(5):
        scores[fold == k] = values[fold == k] @ (values[fold != k].T @ label[fold != k])
    chance = [sum(scores[fold == k] @ rng.permutation(label[fold == k]) for k in range(5)) for _ in range(PERMUTATIONS)]
    return float((1 + np.count_nonzero(np.array(chance) >= scores @ label)) / (1 + PERMUTATIONS))
