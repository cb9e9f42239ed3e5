"""False alarms and power of drift, family-wise over 25 features.

Counts are drawn instead of rows where their distribution is known. For a continuous feature whose edges are quantiles
of the reference this is so whatever its distribution (normal, lognormal, t): the shares between chosen order
statistics are sums of uniform spacings.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.stats as st

from detectors.compare import ALL_ROWS
from detectors.drift import combined_p, drift_findings
from detectors.finding import Subject
from detectors.layout import Column, FeatureCells, Kind, fit_layout
from detectors.multiplicity import holm
from detectors.scores import Case as Counted
from detectors.scores import scores_of

Counts = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Case = tuple[FeatureCells, Counts, Counts]

ALPHA = 0.05
BINS = FeatureCells("x", Kind.NUMERIC, edges=tuple(np.linspace(0, 1, 33)))
FEATURES = 25
FACTORIALS = np.cumprod([1.0, *range(1, 40)])


def continuous(rng: np.random.Generator, m: int, n: int, missing: float) -> Case:
    """Cells between 33 order statistics of the m usable reference rows, and n fresh rows in them."""
    usable_m, usable_n = m - rng.binomial(m, missing), n - rng.binomial(n, missing)
    ranks = np.floor(np.linspace(0, 1, 33) * (usable_m - 1)).astype(int)
    spacings = rng.gamma([ranks[0] + 1, *np.diff(ranks), usable_m - ranks[-1]])
    baseline = np.array([0, *np.diff(ranks), 0, m - usable_m, 0, 0])
    baseline[32] += 1
    current = rng.multinomial(usable_n, spacings / spacings.sum())
    return BINS, baseline, np.array([*current, n - usable_n, 0, 0])


def few_values(rng: np.random.Generator, m: int, n: int, mean: float) -> Case:
    """Poisson counts: one cell for each value that the reference has."""
    probabilities = np.exp(-mean) * mean ** np.arange(40) / FACTORIALS
    reference, window = (rng.multinomial(rows, probabilities / probabilities.sum()) for rows in (m, n))
    seen = np.flatnonzero(reference)
    first, last = int(seen[0]), int(seen[-1])
    between = window[first : last + 1].sum() - window[seen].sum()
    cells = FeatureCells("k", Kind.NUMERIC, points=tuple(seen.astype(float)))
    baseline = np.array([0, *reference[seen], 0, 0, 0, 0, 0])
    return cells, baseline, np.array([window[:first].sum(), *window[seen], window[last + 1 :].sum(), between, 0, 0, 0])


def levels(rng: np.random.Generator, m: int, n: int, count: int, missing: float) -> Case:
    """Listed levels with Zipf frequencies."""
    frequency = 1 / np.arange(1, count + 1)
    shares = [*(frequency / frequency.sum() * (1 - missing)), 0, 0, missing, 0]
    cells = FeatureCells("c", Kind.CATEGORICAL, levels=tuple(map(str, range(count))))
    return cells, rng.multinomial(m, shares), rng.multinomial(n, shares)


def mixed_features(rng: np.random.Generator, m: int, n: int) -> Iterator[Case]:
    for i in range(12):
        yield continuous(rng, m, n, (0.0, 0.0, 0.01, 0.05)[i % 4])
    for mean in (0.02, 0.3, 1.0, 3.0):
        yield few_values(rng, m, n, mean)
    for count in (2, 3, 10, 10, 10, 50, 50, 50, 50):
        yield levels(rng, m, n, count, 0.01 if count == 10 else 0.0)


def p_values(cases: list[Case]) -> Floats:
    judged = [Counted(cells, baseline.astype(float), current.astype(float)) for cells, baseline, current in cases]
    return np.array([combined_p(scores) for scores in scores_of(judged)])


def false_alarms(rng: np.random.Generator, m: int, n: int, repetitions: int) -> int:
    """Windows with any alarm at family-wise 5 %."""
    found = p_values([case for _ in range(repetitions) for case in mixed_features(rng, m, n)])
    return int((found.reshape(repetitions, FEATURES).min(axis=1) <= ALPHA / FEATURES).sum())


@pytest.mark.parametrize("m", [1_000, 10_000])
def test_windows_without_drift_alarm_at_the_nominal_rate(m: int) -> None:
    """On average over references; ``make bench-quality`` has 2,000 repetitions a cell, and more features."""
    rng = np.random.default_rng(m)
    windows, repetitions = (500, 2_000, 10_000), 160
    alarms = [false_alarms(rng, m, n, repetitions) for n in windows]
    low, high = (float(st.binom.ppf(q, repetitions, ALPHA)) for q in (0.001, 0.999))
    assert all(low <= found <= high for found in alarms)
    low, high = (float(st.binom.ppf(q, repetitions * len(windows), ALPHA)) for q in (0.01, 0.99))
    assert low <= sum(alarms) <= high


def test_layouts_fitted_to_rows_alarm_at_the_nominal_rate() -> None:
    """Through real rows: quantile edges from the counted rows, levels from a fifth, 200 Zipf levels, missing values."""
    rng = np.random.default_rng(21)
    zipf = 1 / np.arange(1, 201)
    zipf /= zipf.sum()
    kinds = {f"x{i}": Kind.NUMERIC for i in range(6)} | {f"c{i}": Kind.CATEGORICAL for i in range(3)}

    def table(rows: int) -> dict[str, Column]:
        x = [rng.normal(size=rows), rng.lognormal(size=rows), rng.standard_t(3, rows), rng.poisson(2.0, rows)]
        x += [rng.integers(0, 300, rows), np.where(rng.random(rows) < 0.02, np.nan, rng.normal(size=rows))]
        columns = {f"x{i}": Column.of(pl.Series(v.astype(float), nan_to_null=True)) for i, v in enumerate(x)}
        for i, shares in enumerate((zipf, zipf[:50] / zipf[:50].sum(), [0.9, 0.09, 0.01])):
            columns[f"c{i}"] = Column.of(pl.Series(rng.choice(len(shares), rows, p=shares)).cast(pl.String))
        return columns

    repetitions, alarms = 120, 0
    for _ in range(repetitions):
        reference = table(1_000)
        ids = [f"{rng.integers(1 << 60)}" for _ in range(1_000)]
        layout, counts = fit_layout({name: (kinds[name], c) for name, c in reference.items()}, ids, {})
        found = drift_findings(ALL_ROWS, Subject(), "drift", "r", layout, counts, layout.count(table(500)), 200)
        alarms += bool((holm([f.p_value for f in found if f.p_value is not None]) <= ALPHA).any())
    assert alarms <= st.binom.ppf(0.999, repetitions, ALPHA)
    assert alarms >= 1


def test_false_windows_add_up_to_the_sum_of_their_alphas() -> None:
    """Windows that share one reference depend on each other; their expected number of false alarms does not mind."""
    rng = np.random.default_rng(22)
    references, windows, alpha = 150, 8, 0.05
    cases = []
    for _ in range(references):
        cells, baseline, _ = continuous(rng, 2_000, 1, 0.0)
        ends = np.cumsum(rng.gamma(np.append(baseline[1:33], 1.0)))
        shares = np.append(np.diff(ends[:-1] / ends[-1], prepend=0.0), 1 - ends[-2] / ends[-1])
        cases += [(cells, baseline, np.array([0, *rng.multinomial(500, shares), 0, 0, 0])) for _ in range(windows)]
    alarms = (p_values(cases).reshape(references, windows) <= alpha).sum(axis=1)
    standard_error = alarms.std() / references**0.5
    assert alarms.mean() <= windows * alpha + 3 * standard_error
    assert alarms.mean() > 0


def power(draw: Callable[[np.random.Generator], Case]) -> float:
    """The share of 1,000 windows in which one feature among 25 is found at family-wise 5 % (Bonferroni)."""
    rng = np.random.default_rng(31)
    return float((p_values([draw(rng) for _ in range(1_000)]) <= ALPHA / FEATURES).mean())


def moved(cdf: Callable[[Floats], Floats]) -> Callable[[np.random.Generator], Case]:
    """10,000 reference rows of a normal and 500 rows of another distribution, given at the normal's quantiles."""

    def draw(rng: np.random.Generator) -> Case:
        ranks = np.floor(np.linspace(0, 1, 33) * 9_999).astype(int)
        spacings = rng.gamma([ranks[0] + 1, *np.diff(ranks), 10_000 - ranks[-1]])
        edges = st.norm.ppf(np.cumsum(spacings)[:-1] / spacings.sum())
        shares = np.diff([0.0, *cdf(edges), 1.0])
        baseline = np.array([0, *np.diff(ranks), 0, 0, 0, 0])
        baseline[32] += 1
        return BINS, baseline, np.array([*rng.multinomial(500, shares), 0, 0, 0])

    return draw


def lognormal_moved(z: Floats) -> Floats:
    """exp(Z) plus 0.05 of its standard deviations."""
    shift = 0.05 * np.sqrt((np.e - 1) * np.e)
    return np.asarray(st.norm.cdf(np.log(np.maximum(np.exp(z) - shift, 1e-300))))


def more_missing(rng: np.random.Generator) -> Case:
    cells, baseline, _ = continuous(rng, 10_000, 1, 0.01)
    _, _, current = continuous(rng, 10_000, 500, 0.03)
    return cells, baseline, current


def grown_level(rng: np.random.Generator) -> Case:
    cells = FeatureCells("c", Kind.CATEGORICAL, levels=tuple("abcdefghij"))
    before, after = ([share, *[(1 - share) / 9] * 9, 0, 0, 0, 0] for share in (0.05, 0.08))
    return cells, rng.multinomial(10_000, before), rng.multinomial(500, after)


@pytest.mark.parametrize(
    ("draw", "floor"),
    [
        (moved(lambda z: st.norm.cdf(z - 0.1)), 0.09),
        (moved(lambda z: st.norm.cdf(z - 0.2)), 0.74),
        (moved(lambda z: st.norm.cdf(z / 1.2**0.5)), 0.15),
        (moved(lognormal_moved), 0.60),
        (grown_level, 0.20),
        (more_missing, 0.50),
    ],
    ids=["mean +0.1 sd", "mean +0.2 sd", "variance x1.2", "lognormal +0.05 sd", "level 5 to 8 %", "missing 1 to 3 %"],
)
def test_500_rows_are_enough_to_see(draw: Callable[[np.random.Generator], Case], floor: float) -> None:
    found = power(draw)
    assert found >= st.binom.ppf(0.01, 1_000, floor) / 1_000
