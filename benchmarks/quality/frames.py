"""Features of known distribution: 20 numeric ones of several shapes and 5 categorical ones.

Layouts are fitted to a new reference, and of a window the counts are drawn with the probability that each cell has:
the distribution of counted rows, at a hundredth of the cost. ``fitted_to_rows`` and ``counted`` go through rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri, pdtr, stdtr, stdtrit

from detectors.layout import (
    COMMON_LEVEL_ROWS,
    MAX_BINS,
    MAX_LEVELS,
    Column,
    FeatureCells,
    Kind,
    Layout,
    fit_layout,
)

Rng = np.random.Generator
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Function = Callable[[Floats], NDArray[Any]]


@dataclass(frozen=True)
class Numeric:
    """A number.

    below
        P(value < x).
    quantile
        Its inverse, for those without ties. Then the edges of a reference's cells are drawn without its rows: they
        are order statistics, and the shares between these are sums of exponential spacings.
    """

    name: str
    draw: Callable[[Rng, int], NDArray[Any]]
    below: Function
    missing: float = 0.0
    quantile: Function | None = None

    def column(self, rng: Rng, rows: int) -> Column:
        """That many values."""
        values = self.draw(rng, rows).astype(np.float64)
        values[rng.random(rows) < self.missing] = np.nan
        return Column.of(pl.Series(values, nan_to_null=True))

    def fitted(self, rng: Rng, rows: int) -> tuple[FeatureCells, Counts]:
        """The cells and counts that ``fit_layout`` makes of that many rows."""
        if self.quantile is None:
            layout, counts = fit_layout({self.name: (Kind.NUMERIC, self.column(rng, rows))}, [], {})
            return layout.features[0], counts
        usable = rows - rng.binomial(rows, self.missing)
        ranks = np.floor(np.linspace(0, 1, MAX_BINS + 1) * (usable - 1))
        spacings = rng.gamma([ranks[0] + 1, *np.diff(ranks), usable - ranks[-1]])
        edges = self.quantile(np.cumsum(spacings)[:-1] / spacings.sum())
        edges[-1] = np.nextafter(edges[-1], np.inf)
        last = np.arange(MAX_BINS) == MAX_BINS - 1
        counts = np.array([0, *(np.diff(ranks) + last), 0, rows - usable, 0, 0], np.int64)
        return FeatureCells(self.name, Kind.NUMERIC, edges=tuple(edges.tolist())), counts

    def probabilities(self, cells: FeatureCells) -> Floats:
        """That of each cell."""
        found = np.zeros(cells.size)
        if cells.points:
            at = np.array(cells.points)
            below, upto = self.below(at), self.below(np.nextafter(at, np.inf))
            found[0], found[1 : cells.ordered - 1], found[cells.ordered - 1] = below[0], upto - below, 1 - upto[-1]
            found[cells.ordered] = max(0.0, 1 - found.sum())
        else:
            found[: cells.ordered] = np.diff(self.below(np.array(cells.edges)), prepend=0.0, append=1.0)
        found *= 1 - self.missing
        found[cells.state("missing")] = self.missing
        return np.maximum(found, 0.0)


@dataclass(frozen=True)
class Categorical:
    """Levels whose frequencies fall as 1, 1/2, 1/3, ..., or those given."""

    name: str
    levels: int
    missing: float = 0.0
    given: tuple[float, ...] = ()

    @cached_property
    def shares(self) -> Floats:
        """That of each level, and of missing."""
        frequencies = np.array(self.given) if self.given else 1 / np.arange(1, self.levels + 1)
        return np.append(frequencies / frequencies.sum() * (1 - self.missing), self.missing)

    def column(self, rng: Rng, rows: int) -> Column:
        """That many values."""
        names = pl.Series([*map(str, range(self.levels)), None], dtype=pl.String)
        return Column.of(names.gather(rng.choice(self.levels + 1, rows, p=self.shares)))

    def fitted(self, rng: Rng, rows: int) -> tuple[FeatureCells, Counts]:
        """The cells and counts that ``fit_layout`` makes of that many rows."""
        fifth = rng.multinomial(rng.binomial(rows, 0.2), self.shares)
        rest = rng.multinomial(rows - fifth.sum(), self.shares)
        seen = (fifth + rest)[:-1]
        seen = seen[seen > 0]
        if len(seen) <= MAX_LEVELS and (seen >= COMMON_LEVEL_ROWS).all():
            fifth = rest = fifth + rest
        by_rows = np.argsort(-fifth[:-1], kind="stable")[: np.count_nonzero(fifth[:-1])].tolist()
        frequent, others = map(str, by_rows[:MAX_LEVELS]), map(str, by_rows[MAX_LEVELS:])
        cells = FeatureCells(self.name, Kind.CATEGORICAL, levels=tuple(frequent), others=tuple(others))
        return cells, self._in_cells(cells, rest).astype(np.int64)

    def probabilities(self, cells: FeatureCells) -> Floats:
        """That of each cell."""
        return self._in_cells(cells, self.shares)

    def _in_cells(self, cells: FeatureCells, by_level: NDArray[Any]) -> Floats:
        to = np.full(self.levels + 1, len(cells.levels) + 1)
        to[[int(level) for level in cells.others]] = len(cells.levels)
        to[[int(level) for level in cells.levels]] = np.arange(len(cells.levels))
        to[-1] = cells.state("missing")
        return np.bincount(to, by_level, cells.size).astype(np.float64)


Feature = Numeric | Categorical


def normal(mean: float = 0.0, sd: float = 1.0, missing: float = 0.0) -> Numeric:
    """Of that mean and standard deviation."""
    return Numeric(
        f"normal {mean:g} {sd:g}, {missing:g} missing",
        lambda rng, rows: rng.normal(mean, sd, rows),
        lambda x: ndtr((x - mean) / sd),
        missing,
        lambda p: mean + sd * ndtri(p),
    )


def lognormal(shift: float = 0.0, missing: float = 0.0) -> Numeric:
    """exp of a standard normal, plus a shift."""
    return Numeric(
        f"lognormal {shift:g}, {missing:g} missing",
        lambda rng, rows: rng.lognormal(size=rows) + shift,
        lambda x: _below_lognormal(x - shift),
        missing,
        lambda p: np.exp(ndtri(p)) + shift,
    )


def _below_lognormal(x: Floats) -> NDArray[Any]:
    return np.asarray(ndtr(np.log(np.maximum(x, 1e-300))))


def _t3(missing: float) -> Numeric:
    return Numeric(
        f"t3, {missing:g} missing",
        lambda rng, rows: rng.standard_t(3, rows),
        lambda x: stdtr(3, x),
        missing,
        lambda p: stdtrit(3, p),
    )


def _exponential(missing: float) -> Numeric:
    return Numeric(
        f"exponential, {missing:g} missing",
        lambda rng, rows: rng.exponential(size=rows),
        lambda x: -np.expm1(-np.maximum(x, 0)),
        missing,
        lambda p: -np.log1p(-p),
    )


def _beta(shape: float) -> Numeric:
    return Numeric(
        f"beta {shape:g}",
        lambda rng, rows: rng.beta(shape, shape, rows),
        lambda x: betainc(shape, shape, np.clip(x, 0, 1)),
        quantile=lambda p: betaincinv(shape, shape, p),
    )


def _whole(name: str, mean: float, sd: float) -> Numeric:
    return Numeric(
        name,
        lambda rng, rows: np.rint(rng.normal(mean, sd, rows)),
        lambda x: ndtr((np.ceil(x) - 0.5 - mean) / sd),
    )


def _poisson(name: str, mean: float, missing: float = 0.0) -> Numeric:
    return Numeric(
        name,
        lambda rng, rows: rng.poisson(mean, rows),
        lambda x: np.where(x > 0, pdtr(np.maximum(np.ceil(x) - 1, 0), mean), 0.0),
        missing,
    )


def _often_zero(name: str, zeros: float, missing: float = 0.0) -> Numeric:
    return Numeric(
        name,
        lambda rng, rows: np.where(rng.random(rows) < zeros, 0.0, rng.lognormal(size=rows)),
        lambda x: zeros * (x > 0) + (1 - zeros) * _below_lognormal(x),
        missing,
    )


FEATURES: tuple[Feature, ...] = (
    *(normal(missing=missing) for missing in (0.0, 0.01, 0.05, 0.3)),
    *(lognormal(missing=missing) for missing in (0.0, 0.02)),
    *(_t3(missing) for missing in (0.0, 0.002)),
    *(_exponential(missing) for missing in (0.0, 0.1)),
    *(_beta(shape) for shape in (1.0, 0.5)),
    _often_zero("half zero", 0.5),
    _often_zero("mostly zero", 0.9, 0.01),
    _whole("age", 40, 15),
    _whole("amount", 5_000, 2_000),
    _poisson("poisson 0.02", 0.02),
    _poisson("poisson 0.3", 0.3, 0.01),
    _poisson("poisson 3", 3.0),
    _poisson("poisson 40", 40.0),
    Categorical("2 levels", 2),
    Categorical("5 levels", 5, 0.02),
    Categorical("10 levels", 10),
    Categorical("50 levels", 50, 0.01),
    Categorical("200 levels", 200),
)


def fitted(features: Sequence[Feature], rng: Rng, rows: int) -> tuple[Layout, Counts]:
    """A layout fitted to a new reference of that many rows, and its counts there."""
    parts = [f.fitted(rng, rows) for f in features]
    return Layout(tuple(cells for cells, _ in parts)), np.concatenate([counts for _, counts in parts])


def probabilities(features: Sequence[Feature], layout: Layout) -> list[Floats]:
    """Those of the cells of each feature, for ``window``."""
    return [f.probabilities(cells) for f, cells in zip(features, layout.features, strict=True)]


def window(of_features: Sequence[Floats], rng: Rng, rows: int, windows: int = 1) -> Counts:
    """The counts of windows of that many rows each, a row each."""
    return np.concatenate([rng.multinomial(rows, of, windows) for of in of_features], axis=1)


def fitted_to_rows(features: Sequence[Feature], rng: Rng, rows: int) -> tuple[Layout, Counts]:
    """The same as ``fitted``, with the levels chosen from rows as well."""
    kinds = {f.name: Kind.NUMERIC if isinstance(f, Numeric) else Kind.CATEGORICAL for f in features}
    columns = {f.name: (kinds[f.name], f.column(rng, rows)) for f in features}
    return fit_layout(columns, [f"{i}" for i in rng.integers(1 << 60, size=rows)], {})


def counted(features: Sequence[Feature], layout: Layout, rng: Rng, rows: int) -> Counts:
    """The counts of one window, from rows."""
    return layout.count({f.name: f.column(rng, rows) for f in features})
