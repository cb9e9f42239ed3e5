"""Features of known distribution: 20 numeric ones of several shapes and 5 categorical ones.

A reference is drawn as rows and its layout is fitted to them. Of a window only the counts are drawn, with the
probability that each cell has: the same distribution as that of counted rows, at a hundredth of the cost. ``rows``
gives windows as rows too, for the measures that check just that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import betainc, ndtr, pdtr, stdtr

from detectors.layout import (
    COMMON_LEVEL_ROWS,
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
Below = Callable[[Floats], NDArray[Any]]


@dataclass(frozen=True)
class Numeric:
    """A number.

    below
        P(value < x).
    """

    name: str
    draw: Callable[[Rng, int], NDArray[Any]]
    below: Below
    missing: float = 0.0

    def column(self, rng: Rng, rows: int) -> Column:
        """That many values."""
        values = self.draw(rng, rows).astype(np.float64)
        values[rng.random(rows) < self.missing] = np.nan
        return Column.of(pl.Series(values, nan_to_null=True))

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


def _lognormal(x: Floats) -> NDArray[Any]:
    return np.asarray(ndtr(np.log(np.maximum(x, 1e-300))))


def _normal(name: str, missing: float = 0.0) -> Numeric:
    return Numeric(name, lambda rng, rows: rng.normal(size=rows), ndtr, missing)


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
        lambda x: zeros * (x > 0) + (1 - zeros) * _lognormal(x),
        missing,
    )


FEATURES: tuple[Feature, ...] = (
    *(_normal(f"normal {100 * gap:g} % missing", gap) for gap in (0.0, 0.01, 0.05, 0.3)),
    *(Numeric(f"lognormal {gap}", lambda r, n: r.lognormal(size=n), _lognormal, gap) for gap in (0.0, 0.02)),
    *(Numeric(f"t3 {gap}", lambda r, n: r.standard_t(3, n), lambda x: stdtr(3, x), gap) for gap in (0.0, 0.002)),
    *(
        Numeric(f"exponential {gap}", lambda r, n: r.exponential(size=n), lambda x: -np.expm1(-np.maximum(x, 0)), gap)
        for gap in (0.0, 0.1)
    ),
    Numeric("uniform", lambda rng, rows: rng.random(rows), lambda x: np.clip(x, 0, 1)),
    Numeric("arcsine", lambda rng, rows: rng.beta(0.5, 0.5, rows), lambda x: betainc(0.5, 0.5, np.clip(x, 0, 1))),
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
    """A layout fitted to a new reference of that many rows, and its counts."""
    numbers = {f.name: (Kind.NUMERIC, f.column(rng, rows)) for f in features if isinstance(f, Numeric)}
    layout, counts = fit_layout(numbers, [], {})
    of = {cells.name: (cells, counts[layout.spans[cells.name]]) for cells in layout.features}
    of |= {f.name: f.fitted(rng, rows) for f in features if isinstance(f, Categorical)}
    parts = [of[f.name] for f in features]
    return Layout(tuple(cells for cells, _ in parts)), np.concatenate([found for _, found in parts])


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
