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
        alarms = share(lambda rng, n=rows, f=count: (mixed(rng, n, f), mixed(rng, n, f)), repetitions)  # type: ignore[misc]  # of a default
        within = abs(alarms - ALPHA) <= max(MOST - ALPHA, 2.6 * np.sqrt(ALPHA * (1 - ALPHA) / repetitions))
        what = f"joint: no drift, {rows} rows a side, {count} numbers and 3 categories, windows found at 5 %"
        yield Line(what, "3.5 to 6.5 %", f"{alarms:.1%} of {repetitions}", bool(within))
    short = float(np.mean([shortcut(np.random.default_rng(i)) <= ALPHA for i in range(1_000)]))
    yield Line("joint: the same, had only held-out labels been permuted", "", f"{short:.1%} of 1,000")


def wandering_lines() -> Iterator[Line]:
    """Ten features whose means wander from day to day (AR(1), 0.8, 0.1 sd), ten days before, nothing happens."""
    repetitions = 300
    found, alone, seen = [], [], []
    for i in range(repetitions):
        rng = np.random.default_rng(50_000 + i)
        days = wandering(rng)
        of_day = np.repeat(np.arange(10), 300)
        before = pl.concat(map(numbers, days[:10]))
        found.append(p_value(tell_apart(before, numbers(days[10]), of_day, permutations=PERMUTATIONS)))
        alone.append(p_value(tell_apart(before, numbers(days[10]), permutations=PERMUTATIONS)))
        days[10][:, 1] = 0.5 * days[10][:, 0] + np.sqrt(0.75) * days[10][:, 1]
        seen.append(p_value(tell_apart(before, numbers(days[10]), of_day, permutations=PERMUTATIONS)))
    rate, naive, power = (float(np.mean(np.array(p) <= ALPHA)) for p in (found, alone, seen))
    what = "joint: means that wander from day to day, 10 days before, 300 rows a day"
    yield Line(f"{what}: windows found at 5 %", "at most 6.5 %", f"{rate:.1%} of {repetitions}", rate <= MOST + 0.02)
    yield Line("joint: the same, rows taken as independent", "", f"{naive:.1%}")
    yield Line("joint: the same, correlation 0 to 0.5 in the last day: found", "", f"{power:.1%}")


def wandering(rng: Generator) -> list[Floats]:
    mean = 0.1 * rng.normal(size=10)
    days = []
    for _ in range(11):
        mean = 0.8 * mean + 0.06 * rng.normal(size=10)
        days.append(mean + rng.normal(size=(300, 10)))
    return days


def power_lines() -> Iterator[Line]:
    cases: dict[str, tuple[float, int, Callable[[Generator], Tables]]] = {
        "correlation 0 to 0.5 in 2 of 10 features, 300 rows a side": (0.7, 60, lambda rng: flip(rng, 300, 10, 0, 0.5)),
        "the same, 1,000 rows a side": (0.95, 40, lambda rng: flip(rng, 1_000, 10, 0, 0.5)),
        "correlation 0.3 to -0.3 in 2 of 25, 1,000 rows a side": (0.8, 40, lambda rng: flip(rng, 1_000, 25, 0.3, -0.3)),
        "a number goes with a category, then against it, 1,000 rows a side": (0.95, 40, against),
        "mean +0.05 sd in each of 25, 5,000 rows a side": (0.95, 10, lambda rng: moved(rng, 5_000, 5_000, 25, 0.05)),
        "mean +0.2 sd in 1 of 25, 1,000 rows against 9,000": (0.5, 20, lambda rng: moved(rng, 9_000, 1_000, 1, 0.2)),
        "mean +0.5 sd in 1 of 25, 1,000 rows against 9,000": (0.95, 20, lambda rng: moved(rng, 9_000, 1_000, 1, 0.5)),
    }
    peers = {
        "mean +0.5 sd in 1 of 25, 1,000 rows against 9,000": "; NannyML's domain classifier 0 of 12 against 10,000",
        "mean +0.2 sd in 1 of 25, 1,000 rows against 9,000": "; NannyML's PCA 52 %, and 38 to 48 % where nothing moved",
    }
    for name, (wanted, repetitions, make) in cases.items():
        runs = [
            tell_apart(*make(np.random.default_rng(90_000 + i)), permutations=PERMUTATIONS) for i in range(repetitions)
        ]
        power = float(np.mean([p_value(run) <= ALPHA for run in runs]))
        first = [run.parts[0].features for run in runs if run.parts and p_value(run) <= ALPHA]
        planted = {("x0", "x1"), ("c", "x0")} if "correlation" in name or "category" in name else {("x0",)}
        named = f", {np.mean([f in planted for f in first]):.0%} of {len(first)} named right" if first else ""
        shown = "" if "each" in name else named
        yield Line(f"joint: {name}", f"≥ {wanted:.0%}", f"{power:.0%}{shown}{peers.get(name, '')}", power >= wanted)


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
