"""The cells of a model's features, and counting rows into them.

A layout is made once for a model and never changes. A window of traffic is then one vector of counts over
the layout's cells, and merging windows, servers or versions is adding their vectors.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_BINS = 32
MAX_COMMON = 10
"""Values with a bin of their own among those between quantiles."""
ROWS_IN_BIN = 5
"""Of what is left beside those values, a bin has at least so many rows."""
SLOTS = (256, 1024, 4096)
"""Into so many parts the range of bins is cut, so that a number's bin is found without bisection."""
MAX_LEVELS = 50
MAX_REMEMBERED_LEVELS = 10_000
SCORE_BINS = 100
LATENCY_GROWTH = 1.04
LATENCY_SMALLEST_MS = 0.01
LATENCY_BINS = 600
FEW_ROWS_FOR_LEVELS = 1_000
COMMON_LEVEL_ROWS = 5
"""A level seen fewer times than this in a reference that also supplies the counts would bias the comparison."""


class Kind(StrEnum):
    """How a feature is cut into cells."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    SCORE = "score"
    LATENCY = "latency"


class LayoutError(ValueError):
    """The rows given cannot make a layout; the message says what would."""


@dataclass(frozen=True)
class Column:
    """The values of one feature over some rows.

    values
        Float64 for numeric, score and latency; String for categorical. Null where there is no usable value.
    not_finite, wrong_kind
        Row numbers (ascending, unique) whose value was NaN or infinite, or of another JSON type. Their
        ``values`` are null. Any other null is a missing value.
    """

    values: pl.Series
    not_finite: NDArray[np.int64]
    wrong_kind: NDArray[np.int64]

    @staticmethod
    def of(values: pl.Series) -> Column:
        """A column of a table: not-finite numbers are found here, and no value is of a wrong kind.

        >>> Column.of(pl.Series([1.0, None, float("inf")])).not_finite
        array([2])
        """
        none = np.empty(0, np.int64)
        values = values.alias("")  # Polars takes a name such as ^x$ for a pattern
        if values.dtype == pl.Boolean:
            return Column(values.cast(pl.String), none, none)
        if values.dtype.is_numeric() or values.dtype == pl.Null:
            numbers = values.cast(pl.Float64)
            bad = (numbers.is_nan() | numbers.is_infinite()).fill_null(value=False)
            if not bad.any():
                return Column(numbers, none, none)
            kept = pl.select(pl.when(~bad).then(numbers)).to_series()
            return Column(kept, bad.arg_true().to_numpy().astype(np.int64), none)
        return Column(values.cast(pl.String), none, none)

    def take(self, rows: NDArray[np.bool_]) -> Column:
        """The rows where the mask is true."""
        position = np.cumsum(rows) - 1
        return Column(
            self.values.filter(pl.Series(rows)),
            position[self.not_finite[rows[self.not_finite]]],
            position[self.wrong_kind[rows[self.wrong_kind]]],
        )


class _Steps:
    """Ascending numbers among which others are placed, several times as fast as by bisection.

    Their range is cut into equal slots, each with one step at most. The slot of a number never falls as the number
    grows, however it is rounded, so only the step in the same slot must be looked at. Steps that are too uneven are
    bisected.
    """

    def __init__(self, steps: Floats) -> None:
        self._steps = steps
        self._low, self._scale, self._last = steps[0], np.float64(0), 0
        for slots in SLOTS if len(steps) > 1 else ():
            with np.errstate(over="ignore"):
                self._scale, self._last = slots / (steps[-1] - self._low), slots - 1
            if not 0 < self._scale < np.inf:
                break
            own = self._slots(steps)
            if (np.diff(own) > 0).all():
                self._before = np.searchsorted(own, np.arange(slots)).astype(np.int32)
                self._inside = np.full(slots, np.nan)  # nothing compares to it
                self._inside[own] = steps
                return
        self._last = 0

    def at_most(self, numbers: Floats) -> NDArray[np.int32]:
        """How many steps are not greater than each of some finite numbers."""
        if not self._last:
            return np.searchsorted(self._steps, numbers, side="right").astype(np.int32)
        slots = self._slots(numbers)
        return self._before[slots] + (self._inside[slots] <= numbers)

    def below(self, numbers: Floats) -> NDArray[np.int32]:
        """How many steps are less than each of some finite numbers."""
        if not self._last:
            return np.searchsorted(self._steps, numbers, side="left").astype(np.int32)
        slots = self._slots(numbers)
        return self._before[slots] + (self._inside[slots] < numbers)

    def _slots(self, numbers: Floats) -> NDArray[np.intp]:
        with np.errstate(over="ignore"):
            places = (numbers - self._low) * self._scale
        slots: NDArray[np.intp] = np.clip(places, 0, self._last, out=places).astype(np.intp)
        return slots


@dataclass(frozen=True)
class FeatureCells:
    """The cells of one feature, in this order.

    numeric: ``below``, the bins or single values, ``above``; ``between`` (single values only); then the states.
    categorical: the levels, ``other`` (seen when the layout was made, not frequent), ``new_level``; states.
    score: 100 equal bins on [0, 1]; states. latency: bins that grow by 4 %; states.
    The states are ``missing``, ``not_finite`` (not for categorical), ``wrong_kind``.

    edges
        Numeric: ascending; bin i is ``edges[i] <= x < edges[i + 1]``. Empty for single values.
    points
        Numeric with few distinct values: those values, ascending.
    levels, others
        Categorical: the frequent levels, and the rest that were seen.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @cached_property
    def ordered(self) -> int:
        """How many leading cells have an order, for location and scale. 0 for categorical."""
        match self.kind:
            case Kind.NUMERIC:
                return (len(self.points) or len(self.edges) - 1) + 2
            case Kind.SCORE:
                return SCORE_BINS
            case Kind.LATENCY:
                return LATENCY_BINS
            case Kind.CATEGORICAL:
                return 0

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The names of the last cells: rows without a usable value."""
        if self.kind is Kind.CATEGORICAL:
            return ("missing", "wrong_kind")
        return ("missing", "not_finite", "wrong_kind")

    @cached_property
    def valued(self) -> int:
        """How many leading cells hold rows with a usable value."""
        if self.kind is Kind.CATEGORICAL:
            return len(self.levels) + 2
        return self.ordered + bool(self.points)

    @property
    def size(self) -> int:
        """The number of cells."""
        return self.valued + len(self.states)

    def state(self, name: str) -> int:
        """The index of a state cell such as ``missing``."""
        return self.valued + self.states.index(name)

    @cached_property
    def unseen(self) -> tuple[int, ...]:
        """Cells outside what the layout was made from: below, above, between, new level."""
        if self.kind is Kind.CATEGORICAL:
            return (len(self.levels) + 1,)
        if self.kind is not Kind.NUMERIC:
            return ()
        return (0, self.ordered - 1, *((self.ordered,) if self.points else ()))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A readable name for each cell.

        >>> FeatureCells("x", Kind.NUMERIC, points=(0.0, 1.0)).labels
        ('below 0', '0', '1', 'above 1', 'between', 'missing', 'not_finite', 'wrong_kind')
        """
        match self.kind:
            case Kind.NUMERIC:
                return self.labelled(_told_apart)
            case Kind.SCORE:
                return (*(f"{i / 100:.2f} to {(i + 1) / 100:.2f}" for i in range(SCORE_BINS)), *self.states)
            case Kind.LATENCY:
                return (*(f"{x:.3g} ms" for x in self.representatives), *self.states)
            case Kind.CATEGORICAL:
                return (*self.levels, "other", "new_level", *self.states)

    def labelled(self, shown: Callable[[Floats], Sequence[str]]) -> tuple[str, ...]:
        """The labels of a numeric feature, with its values as ``shown`` writes them: different ones differently.

        A bin that holds a single value is called by that.
        """
        if self.points:
            values = shown(self._points)
            return (f"below {values[0]}", *values, f"above {values[-1]}", "between", *self.states)
        edges = np.array(self.edges)
        single = edges[1:] == _above(edges[:-1])
        written = np.append(True, ~single)
        texts = shown(edges[written])
        starts = [texts[i] for i in np.cumsum(written) - 1]
        bins = (a if a == b else f"{a} to {b}" for a, b in itertools.pairwise(starts))
        return (f"below {starts[0]}", *bins, f"above {starts[-1]}", *self.states)

    @cached_property
    def representatives(self) -> Floats:
        """One value for each ordered cell: a bin's middle, a point, or the nearest end of the range."""
        if self.kind is Kind.SCORE:
            return (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS
        if self.kind is Kind.LATENCY:
            return LATENCY_SMALLEST_MS * np.power(LATENCY_GROWTH, np.arange(LATENCY_BINS, dtype=np.float64) + 0.5)
        inner = np.array(self.points) if self.points else _middles(np.array(self.edges))
        ends = self.points or self.edges
        return np.concatenate([[ends[0]], inner, [ends[-1]]])

    def cells(self, column: Column) -> NDArray[np.int32]:
        """The cell of every row.

        >>> x = FeatureCells("x", Kind.NUMERIC, points=(0.0, 1.0))
        >>> x.cells(Column.of(pl.Series([0.0, 1.0, -3.0, 0.5, None, float("nan")])))
        array([1, 2, 0, 4, 5, 6], dtype=int32)
        """
        values = column.values
        if self.kind is Kind.CATEGORICAL:
            cells = self._level_cells(values)
        else:
            numbers = values.to_numpy()
            if values.null_count():
                numbers = np.where(np.isnan(numbers), 0.0, numbers)
            cells = self._number_cells(numbers)
        if values.null_count():
            cells[values.is_null().to_numpy()] = self.state("missing")
        if len(column.not_finite):
            cells[column.not_finite] = self.state("not_finite")
        if len(column.wrong_kind):
            cells[column.wrong_kind] = self.state("wrong_kind")
        return cells

    def _number_cells(self, numbers: Floats) -> NDArray[np.int32]:
        if self.kind is Kind.SCORE:
            cells = np.minimum((numbers * SCORE_BINS).astype(np.int32), SCORE_BINS - 1)
            cells[(numbers < 0) | (numbers > 1)] = self.state("wrong_kind")
            return cells
        if self.kind is Kind.LATENCY:
            exponent = np.log(np.maximum(numbers, LATENCY_SMALLEST_MS) / LATENCY_SMALLEST_MS)
            cells = np.minimum(exponent / math.log(LATENCY_GROWTH), LATENCY_BINS - 1).astype(np.int32)
            cells[numbers < 0] = self.state("wrong_kind")
            return cells
        if not self.points:
            return self._steps.at_most(numbers)
        at = self._steps.below(numbers)
        exact = self._points[np.minimum(at, len(self.points) - 1)] == numbers
        between = ~exact & (at > 0) & (at < len(self.points))
        cells = at + np.where(exact | (at == len(self.points)), 1, 0).astype(np.int32)
        cells[between] = self.ordered
        return cells

    @cached_property
    def _steps(self) -> _Steps:
        return _Steps(self._points if self.points else np.array(self.edges))

    @cached_property
    def _points(self) -> Floats:
        return np.array(self.points)

    @cached_property
    def _known_levels(self) -> pa.Array:
        import pyarrow as pa

        return pa.array([*self.levels, *self.others], pa.large_string())

    def _level_cells(self, values: pl.Series) -> NDArray[np.int32]:
        import pyarrow.compute as pc

        new_level = len(self.levels) + (0 if len(self.others) >= MAX_REMEMBERED_LEVELS else 1)
        texts = values.to_arrow(compat_level=pl.CompatLevel.oldest())
        found = pc.index_in(texts, value_set=self._known_levels).fill_null(-1)
        cells: NDArray[np.int32] = np.minimum(found.to_numpy(zero_copy_only=False), len(self.levels)).astype(np.int32)
        cells[cells < 0] = new_level
        return cells


@dataclass(frozen=True)
class Layout:
    """The cells of all features of one model, end to end in one vector."""

    features: tuple[FeatureCells, ...]

    @cached_property
    def id(self) -> str:
        """A hash of the cells: the same cells have the same id."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @cached_property
    def size(self) -> int:
        """The number of cells over all features."""
        return sum(f.size for f in self.features)

    @cached_property
    def spans(self) -> Mapping[str, slice]:
        """Where each feature's cells stand in the vector."""
        ends = np.cumsum([f.size for f in self.features]).tolist()
        return {f.name: slice(end - f.size, end) for f, end in zip(self.features, ends, strict=True)}

    @cached_property
    def by_name(self) -> Mapping[str, FeatureCells]:
        """The features by name."""
        return {f.name: f for f in self.features}

    def count(self, columns: Mapping[str, Column]) -> Counts:
        """The count vector of some rows; a feature that is not among the columns stays at zero.

        >>> layout = Layout((FeatureCells("x", Kind.NUMERIC, points=(0.0, 1.0)),))
        >>> layout.count({"x": Column.of(pl.Series([0.0, 1.0, 1.0, None]))})
        array([0, 1, 2, 0, 0, 1, 0, 0])
        """
        counts = np.zeros(self.size, np.int64)
        for feature in self.features:
            if feature.name in columns:
                cells = feature.cells(columns[feature.name])
                counts[self.spans[feature.name]] = np.bincount(cells, minlength=feature.size)
        return counts

    def to_json(self) -> str:
        """The layout as text, for storing; ``from_json`` reads it back."""
        rows = [
            {
                "name": f.name,
                "kind": f.kind,
                "edges": f.edges,
                "points": f.points,
                "levels": f.levels,
                "others": f.others,
            }
            for f in self.features
        ]
        return json.dumps(rows, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Layout:
        """The layout that ``to_json`` wrote."""
        return Layout(
            tuple(
                FeatureCells(
                    row["name"],
                    Kind(row["kind"]),
                    tuple(row["edges"]),
                    tuple(row["points"]),
                    tuple(row["levels"]),
                    tuple(row["others"]),
                )
                for row in json.loads(text)
            )
        )


@dataclass(frozen=True)
class CountedFeature:
    """The cells of one feature and the counts a reference has in them."""

    cells: FeatureCells
    counts: Counts


def numeric_cells(name: str, values: pl.Series) -> FeatureCells:
    """Bins between the quantiles of the values, or one cell a value when there are at most 32 of them.

    A value that many rows have gets a bin of its own, and few rows that are all different are no values to be told
    apart: else any other value in a window of a column that mostly is 0 would be one that was never seen. Using the
    same rows for the edges and for the counts is harmless here (measured in the tests), unlike for levels.

    >>> numeric_cells("x", pl.Series([3.0, 1.0, 3.0])).points
    (1.0, 3.0)
    >>> numeric_cells("x", pl.Series([0.0] * 970 + [1.5 * i for i in range(1, 31)])).edges[:3]
    (0.0, 5e-324, 1.5)
    """
    finite = values.drop_nulls().to_numpy()
    if len(finite) == 0:
        return FeatureCells(name, Kind.NUMERIC, points=(0.0,))
    points = _few_values(finite)
    if points is not None:
        return FeatureCells(name, Kind.NUMERIC, points=tuple(points.tolist()))
    edges = _quantiles(finite, MAX_BINS)
    common, repeats = np.unique(edges[1:][edges[1:] == edges[:-1]], return_counts=True)
    common = common[np.argsort(-repeats, kind="stable")[:MAX_COMMON]]
    if len(common):
        rest = finite[~np.isin(finite, common)]
        bins = min(MAX_BINS - 2 * len(common), max(1, len(rest) // ROWS_IN_BIN))
        edges = np.concatenate([_quantiles(rest, bins), common, _above(common)])
    edges = np.unique(edges)
    if edges[-1] <= finite.max():
        edges[-1] = _above(edges[-1])
    return FeatureCells(name, Kind.NUMERIC, edges=tuple(edges.tolist()))


def _few_values(finite: Floats) -> Floats | None:
    """The distinct values, where there are few and most of them were seen more than once."""
    many = len(finite) > 4 * MAX_BINS
    if many and len(np.unique(finite[: 4 * MAX_BINS])) > MAX_BINS:
        return None
    distinct, rows = np.unique(finite, return_counts=True)
    if len(distinct) > MAX_BINS or (many and 2 * (rows == 1).sum() > len(distinct)):
        return None
    return distinct


def _told_apart(values: Floats) -> list[str]:
    """Numbers with six digits, or as many more as tell them apart.

    >>> _told_apart(np.array([0.5, 1e6, 1e6 + 0.5]))
    ['0.5', '1000000', '1000000.5']
    """
    for digits in range(6, 18):
        texts = [f"{x:.{digits}g}" for x in values.tolist()]
        if len({*texts}) == len(texts):
            break
    return texts


def _above(values: Floats) -> Floats:
    """The next number; infinite above the largest."""
    with np.errstate(over="ignore"):
        return np.asarray(np.nextafter(values, np.inf), dtype=np.float64)


def _quantiles(values: Floats, bins: int) -> Floats:
    return np.quantile(values, np.linspace(0, 1, bins + 1), method="lower") if len(values) else values


def categorical_cells(name: str, values: pl.Series, levels: Sequence[str] = ()) -> FeatureCells:
    """The most frequent levels of the values, and the others that were seen. Given levels are taken as they are.

    >>> categorical_cells("x", pl.Series(["a", "b", "a"])).levels
    ('a', 'b')
    """
    if levels:
        return FeatureCells(name, Kind.CATEGORICAL, levels=tuple(levels))
    table = values.drop_nulls().alias("level").value_counts(name="rows")
    kept = table.sort(["rows", "level"], descending=[True, False]).head(MAX_LEVELS + MAX_REMEMBERED_LEVELS)
    seen = kept["level"].to_list()
    return FeatureCells(
        name,
        Kind.CATEGORICAL,
        levels=tuple(seen[:MAX_LEVELS]),
        others=tuple(sorted(seen[MAX_LEVELS:])),
    )


def fit_layout(
    columns: Mapping[str, tuple[Kind, Column]], ids: Sequence[str], levels: Mapping[str, Sequence[str]]
) -> tuple[Layout, Counts]:
    """The cells of a model from its reference rows, and the reference's counts over them.

    Numeric cells and counts come from all rows. Levels are chosen on one fifth of the rows and counted on the
    rest, unless every level is common: choosing frequent levels on the counted rows makes 7 to 100 % of
    undisturbed windows look drifted.

    columns
        Per feature its kind and its values; all of the same length.
    ids
        A text per row that decides, by hash, which fifth chooses; so the result does not depend on row order.
    levels
        Per categorical feature the levels that the user declared.

    Raises LayoutError where a categorical feature has rare levels and there are fewer than 1,000 rows.
    """
    chosen: list[CountedFeature] = []
    fifth: NDArray[np.bool_] | None = None
    for name, (kind, column) in columns.items():
        if kind is not Kind.CATEGORICAL:
            cells = numeric_cells(name, column.values) if kind is Kind.NUMERIC else FeatureCells(name, kind)
            chosen.append(_counted(cells, column))
            continue
        declared = levels.get(name, ())
        whole = categorical_cells(name, column.values, declared)
        if declared or _all_common(whole, column):
            chosen.append(_counted(whole, column))
            continue
        if len(ids) < FEW_ROWS_FOR_LEVELS:
            raise LayoutError(
                f"feature {name!r}: {len(whole.levels) + len(whole.others)} levels, some of them rare, "
                f"in {len(ids)} rows; "
                f"name its levels in the configuration or give at least {FEW_ROWS_FOR_LEVELS} rows"
            )
        if fifth is None:
            fifth = chosen_fifth(ids)
        cells = categorical_cells(name, column.values.filter(pl.Series(fifth)))
        chosen.append(_counted(cells, column.take(~fifth)))
    layout = Layout(tuple(c.cells for c in chosen))
    return layout, np.concatenate([c.counts for c in chosen]) if chosen else np.zeros(0, np.int64)


def chosen_fifth(ids: Iterable[str]) -> NDArray[np.bool_]:
    """One row in five, by a hash of its id that is independent of the sampling hash."""
    return np.array([zlib.crc32(b"layout\x1f" + i.encode("utf-8", "surrogatepass")) % 5 == 0 for i in ids])


def _counted(cells: FeatureCells, column: Column) -> CountedFeature:
    return CountedFeature(cells, np.bincount(cells.cells(column), minlength=cells.size))


def _all_common(cells: FeatureCells, column: Column) -> bool:
    if cells.others:
        return False
    counts = np.bincount(cells.cells(column), minlength=cells.size)[: len(cells.levels)]
    return bool((counts >= COMMON_LEVEL_ROWS).all())


def _middles(edges: Floats) -> Floats:
    return edges[:-1] / 2 + edges[1:] / 2
