"""Whether two tables of rows can be told apart, and by which features together.

Marginal counts cannot see that two features hang together otherwise than they did. A classifier can: where it tells
rows of one table from rows of the other that it was not fitted on, something differs between them.

How it works. Every feature becomes a few terms that do not know which table a row is from: its normal score and the
square of that, whether it is missing, its frequent levels. Products of the terms of two features are the pairs. Two
regularised linear discriminants, one of single terms and one of pairs, are fitted on four fifths of the rows and score
the last fifth, five times. They are linear in the labels, so fitting both anew for each of 499 permutations
of the labels is one product of matrices. The test rests on the best of three areas under the ROC curve (AUC): of single
terms, of pairs, and of the sum of both scores.

Permuting only the labels of held-out rows would be quicker, and wrong: the score of one fifth and that of the next use
each other's labels, so their AUCs go up and down together, and such a test at 5 % fires in about 12 % of null runs.

What it does not see: what three or more features do only together; pairs beyond the ``MOST_PAIRS`` (fewer in few rows)
that vary most together; levels and missing values in fewer than ``LEAST_ROWS`` rows of both tables together.

Source: Lopez-Paz and Oquab 2017 (classifier two-sample tests); the exact permutation of the whole fit instead of their
normal limit; Fisher's discriminant with a ridge (Friedman 1989).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

from detectors.finding import Contribution, Finding, Status, Subject, Window

PERMUTATIONS = 499
FOLDS = 5
RIDGE = 0.1
"""Added to the variance of each term, which is 1."""
ROWS_PER_PAIR = 20
"""So many rows of both tables are needed for each pair that is looked at."""
MOST_PAIRS = 500
MOST_LEVELS = 30
PAIRED_LEVELS = 3
"""So many of the most frequent levels of a feature are paired with other features."""
LEAST_ROWS = 20
FURTHEST = 5.0
"""A term counts no further from its mean than so many standard deviations."""
TOLERANCE = 0.02
"""AUC above 1/2 that is too small to matter, as for the location of one feature."""
LEAST_WINDOWS = 5
"""Fewer other windows do not tell how much windows differ by themselves."""
MOST_PARTS = 5
SIGNIFICANT = 0.05
ONE_SIDED_95, TWO_SIDED_95 = 1.6448536269514722, 1.959963984540054
QUARTERS = ("lowest", "second", "third", "highest")

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """A feature, or two together, and what they give to telling the rows apart.

    share
        Of the distance between the mean scores of held-out rows of both tables: what is lost without this part.
    cell
        Where the tables differ most in it.
    """

    features: tuple[str, ...]
    share: float
    cell: Contribution

    @property
    def name(self) -> str:
        """Its features in words."""
        return " and ".join(self.features)


@dataclass(frozen=True, slots=True)
class Joint:
    """How well rows of two tables can be told apart.

    auc, low, high
        The chance that a current row scores above a baseline row, by models that saw neither, and its 95 % interval;
        1/2 means not at all. ``lowest`` is its one-sided 95 % bound. Of the way of scoring that stands out most.
    p_value
        One-sided, of the best of all ways. With enough other windows it is the larger of two: of the rows among rows,
        and of the window among windows.
    aucs
        The AUC of each way: ``features`` (single terms), ``pairs``, ``both``. ``way`` is the one that stands out most.
    usual, windows
        Mean AUC of the other windows, each against all other rows, and how many there were; None and 0 if too few.
    parts
        What it rests on, the largest share first; only what is beyond chance. Empty where nothing stands out, or where
        it is spread over many.
    """

    status: Status
    n: int
    n_baseline: int
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    lowest: float = 0.5
    p_value: float | None = None
    way: str = ""
    aucs: Mapping[str, float] = field(default_factory=dict)
    usual: float | None = None
    windows: int = 0
    parts: tuple[Part, ...] = ()
    message: str = ""


class _Feature(NamedTuple):
    """One feature of all rows: its terms, those of them that are paired, and the cell of each row, for explaining."""

    name: str
    terms: Floats
    paired: Floats
    cells: Sequence[str]
    codes: Numbers


class _Design(NamedTuple):
    """A column per term, in the order of parts; what each part is, and where its columns begin."""

    values: Matrix
    parts: Sequence[tuple[int, ...]]
    starts: Numbers


class _Fold(NamedTuple):
    """Held-out rows: which, their scores (a row for each set of labels), and the weights that give the first row."""

    rows: slice
    scores: Matrix
    weights: Matrix


def tell_apart(
    baseline: pl.DataFrame,
    current: pl.DataFrame,
    baseline_windows: Sequence[int] | Numbers | None = None,
    minimum_rows: int = 200,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Joint:
    """Tell current rows from baseline rows: a column per feature, numbers or text; null or NaN is a missing value.

    Neither the order of the rows nor that of the columns matters.

    baseline_windows
        For each baseline row the number of the window that it is from. Traffic that wanders from one window to the next
        makes any two windows differ by more than chance though nothing happened. So, where there are ``LEAST_WINDOWS``,
        each of them is told from all other rows too, and the current one must stand out among them. They should have
        as many rows as the current one. Without them, rows are taken to be independent.

    >>> a, b, c = np.random.default_rng(1).normal(size=(3, 1000))
    >>> then = pl.DataFrame({"a": a[:500], "b": b[:500], "c": c[:500]})
    >>> now = pl.DataFrame({"a": a[500:], "b": 0.6 * a[500:] + 0.8 * b[500:], "c": c[500:]})
    >>> found = tell_apart(then, now, permutations=99)
    >>> found.p_value, found.parts[0].name
    (0.01, 'a and b')
    """
    n, m = current.height, baseline.height
    if min(n, m) < minimum_rows:
        few = f"{n} rows against {m} in the baseline; {minimum_rows} are needed on each side"
        return Joint(Status.NOT_ENOUGH_DATA, n, m, message=few)
    windows = np.zeros(m, np.int64) if baseline_windows is None else np.asarray(baseline_windows, np.int64)
    table, window = _shuffled(_pooled(baseline, current), np.concatenate([windows, np.full(n, -1)]), seed)
    features = [f for values in table if (f := _feature(values)) is not None]
    if not features:
        return Joint(
            Status.NOT_ENOUGH_DATA, n, m, message=f"no feature has values or levels that differ in {LEAST_ROWS} rows"
        )
    is_current = window == -1
    others = [window == w for w in np.unique(windows)]
    others = others if len(others) >= LEAST_WINDOWS else []
    labels = _labels([is_current, *others], permutations, seed)
    designs = {way: d for way, d in (("features", _singles(features)), ("pairs", _pairs(features))) if d.parts}
    fits = {way: _cross_fit(design.values, labels) for way, design in designs.items()}
    scores = {way: [fold.scores for fold in fit] for way, fit in fits.items()}
    if len(fits) > 1:
        scores["both"] = [a + b for a, b in zip(*scores.values(), strict=True)]
    held_out = [labels[fold.rows].T > 0 for fold in fits["features"]]
    aucs = np.array([np.mean(list(map(_auc, s, held_out)), axis=0) for s in scores.values()])
    test = _significance(aucs, 1 + len(others))
    way = list(scores)[test.way]
    auc = float(aucs[test.way, 0])
    error = max(test.spread, _auc_error([s[0] for s in scores[way]], [y[0] for y in held_out]))
    used = [name for name in designs if way in (name, "both")]
    return Joint(
        Status.MEASURED,
        n,
        m,
        auc=auc,
        low=max(0.0, auc - TWO_SIDED_95 * error),
        high=min(1.0, auc + TWO_SIDED_95 * error),
        lowest=auc - ONE_SIDED_95 * error,
        p_value=test.p_value,
        way=way,
        aucs=dict(zip(scores, aucs[:, 0].tolist(), strict=True)),
        usual=float(aucs[test.way, 1 : 1 + len(others)].mean()) if others else None,
        windows=len(others),
        parts=_parts(features, [designs[name] for name in used], [fits[name] for name in used], is_current),
    )


def joint_finding(window: Window, baseline_name: str, found: Joint) -> Finding:
    """Detector ``joint``: ``value`` is the AUC, ``severity`` its lower 95 % bound above 1/2 over ``TOLERANCE``.

    ``component`` says by what the rows are told apart: ``features`` one by one, ``pairs`` of them, ``both``.
    ``effects`` holds the AUC of each way and the share of each part, ``contributions`` where it shows most.
    """
    effects = {f"auc_{way}": auc for way, auc in found.aucs.items()}
    if found.usual is not None:
        effects |= {"auc_usual": found.usual}
    return Finding(
        window,
        Subject(),
        "joint",
        baseline_name,
        found.status,
        found.auc,
        found.low,
        found.high,
        found.p_value,
        found.n,
        found.n_baseline,
        component=found.way,
        severity=max(0.0, found.lowest - 0.5) / TOLERANCE,
        effects={**effects, "windows": float(found.windows), **{part.name: part.share for part in found.parts}},
        contributions=tuple(part.cell for part in found.parts),
        message=found.message or _told(found),
    )


def _told(found: Joint) -> str:
    usual = "" if found.usual is None else f", usually {found.usual:.3f} in {found.windows} other windows"
    told = f"rows are told apart with AUC {found.auc:.3f}{usual} (p = {found.p_value:.2g})"
    if not found.parts:
        return f"{told}; no single feature or pair stands out"
    names = ", ".join(f"{part.name} ({part.share:.0%})" for part in found.parts)
    cell = found.parts[0].cell
    return f"{told} by {names}; {cell.cell}: {cell.baseline_share:.1%} before, {cell.share:.1%} now"


# Rows


def _pooled(baseline: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    """Both tables, one below the other, by name; numbers as floats, without NaN, and all else as text."""
    height = {"baseline": baseline.height, "current": current.height}
    columns = {}
    for name in sorted({*baseline.columns, *current.columns}):
        both = [
            t[name] if name in t.columns else pl.repeat(None, rows, eager=True)
            for t, rows in zip((baseline, current), height.values(), strict=True)
        ]
        numeric = all(v.dtype.is_numeric() or v.dtype == pl.Null for v in both)
        kind = pl.Float64 if numeric else pl.String
        values = pl.concat([v.cast(kind).rename(name) for v in both])
        columns[name] = values.fill_nan(None) if numeric else values
    return pl.DataFrame(columns)


def _shuffled(table: pl.DataFrame, window: Numbers, seed: int) -> tuple[pl.DataFrame, Numbers]:
    """The rows in an order that depends on what they hold alone; equal rows of several windows come in any order."""
    order = np.lexsort((window, table.hash_rows(seed=seed).to_numpy()))
    order = order[np.random.default_rng(seed).permutation(len(order))]
    return table[order], window[order]


# Features


def _feature(values: pl.Series) -> _Feature | None:
    """None where it is the same in almost all rows."""
    terms, paired, cells, codes = (_numeric if values.dtype == pl.Float64 else _categorical)(values)
    kept, kept_paired = _standard(terms), _standard(paired)
    return _Feature(values.name, kept, kept_paired, cells, codes) if kept.shape[1] else None


def _numeric(values: pl.Series) -> tuple[Floats, Floats, Sequence[str], Numbers]:
    known = len(values) - values.null_count()
    ranks = (values.rank("average").to_numpy() - 0.5) / max(known, 1)
    missing = values.is_null().to_numpy()
    normal = np.where(missing, 0.0, ndtri(np.where(missing, 0.5, ranks)))
    square = np.where(missing, 0.0, normal**2 - (normal**2).sum() / max(known, 1))
    absent = np.where(_enough(missing), missing, 0.0)
    codes = np.where(missing, len(QUARTERS), np.where(missing, 0.0, ranks) * len(QUARTERS)).astype(np.int64)
    cells = [*(f"{values.name} in its {quarter} quarter" for quarter in QUARTERS), f"{values.name} missing"]
    return np.column_stack([normal, square, absent]), np.column_stack([normal, absent]), cells, codes


def _categorical(values: pl.Series) -> tuple[Floats, Floats, Sequence[str], Numbers]:
    name = values.name
    counts = values.value_counts(name="rows").sort(["rows", name], descending=[True, False], nulls_last=True)
    levels = counts.filter(pl.col("rows") >= LEAST_ROWS)[name].head(MOST_LEVELS).to_list()
    other = len(levels)
    codes = values.replace_strict(levels, range(other), default=other, return_dtype=pl.Int64).to_numpy()
    flags = (codes[:, None] == np.arange(other + 1)).astype(np.float64)
    flags *= _enough(flags)
    paired = PAIRED_LEVELS if np.count_nonzero(flags.any(axis=0)) > 2 else 1
    cells = [f"{name} missing" if level is None else f"{name} = {level}" for level in levels] + [f"{name} = other"]
    return flags, flags[:, :paired], cells, codes


def _enough(flags: NDArray[np.float64] | Flags) -> Flags:
    """Whether flags are up in enough rows, and down in enough."""
    up = np.count_nonzero(flags, axis=0)
    return np.asarray((up >= LEAST_ROWS) & (len(flags) - up >= LEAST_ROWS))


def _standard(terms: Floats) -> Floats:
    """The terms with mean 0 and variance 1, without those that are the same in all rows."""
    centred = terms - terms.mean(axis=0)
    spread = centred.std(axis=0)
    varying = spread > 1e-9
    return np.asarray(np.clip(centred[:, varying] / spread[varying], -FURTHEST, FURTHEST))


def _singles(features: Sequence[_Feature]) -> _Design:
    sizes = [f.terms.shape[1] for f in features]
    values = np.hstack([f.terms for f in features]).astype(np.float32)
    return _Design(values, [(i,) for i in range(len(features))], np.cumsum([0, *sizes[:-1]]))


def _pairs(features: Sequence[_Feature]) -> _Design:
    """Products of two features' terms. Of too many, those that vary most together, in whatever way."""
    terms = np.hstack([f.paired for f in features])
    of = np.repeat(np.arange(len(features)), [f.paired.shape[1] for f in features])
    left, right = np.triu_indices(len(of), 1)
    apart = of[left] != of[right]
    left, right = left[apart], right[apart]
    most = min(MOST_PAIRS, len(terms) // ROWS_PER_PAIR)
    if len(left) > most:
        together = np.maximum(np.abs(_correlations(terms)), np.abs(_correlations(terms**2)))
        kept = np.sort(np.argsort(-together[left, right], kind="stable")[:most])
        left, right = left[kept], right[kept]
    by_part = np.lexsort((of[right], of[left]))
    left, right = left[by_part], right[by_part]
    products = (terms[:, left] * terms[:, right]).astype(np.float32)
    products -= products.mean(axis=0)
    spread = products.std(axis=0)
    np.clip(products / np.where(spread > 0, spread, 1), -FURTHEST, FURTHEST, out=products)
    parts, starts = np.unique(np.column_stack([of[left], of[right]]), axis=0, return_index=True)
    return _Design(products, [tuple(part) for part in parts.tolist()], starts)


def _correlations(terms: Floats) -> Floats:
    centred = terms - terms.mean(axis=0)
    spread = centred.std(axis=0)
    centred /= np.where(spread > 0, spread, 1)
    return np.asarray(centred.T @ centred / len(terms))


# Fitting


def _labels(given: Sequence[Flags], permutations: int, seed: int) -> Matrix:
    """A column for each set of labels, with mean 0: those given, then permutations of the first."""
    rng = np.random.default_rng(seed + 1)
    permuted = rng.permuted(np.broadcast_to(given[0], (permutations, len(given[0]))), axis=1)
    labels = np.concatenate([np.array(given), permuted]).astype(np.float32)
    labels -= labels.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(labels.T)


def _cross_fit(terms: Matrix, labels: Matrix) -> list[_Fold]:
    """Score every fifth of the rows by discriminants that were fitted on the others, for all labels at once."""
    rows = len(terms)
    ends = np.linspace(0, rows, FOLDS + 1).astype(int)
    folds = [slice(a, b) for a, b in itertools.pairwise(ends.tolist())]
    squares = [terms[fold].T @ terms[fold] for fold in folds]
    products = [terms[fold].T @ labels[fold] for fold in folds]
    all_squares, all_products = sum(squares), sum(products)
    fits = []
    for fold, square, product in zip(folds, squares, products, strict=True):
        moments = all_squares - square
        moments[np.diag_indices_from(moments)] += RIDGE * (rows - (fold.stop - fold.start))
        weights = np.linalg.solve(moments, all_products - product)
        fits.append(_Fold(fold, weights.T @ terms[fold].T, weights[:, 0]))
    return fits


def _auc(scores: Matrix, positive: Flags) -> Floats:
    """The area under each row's curve."""
    rows = positive.shape[1]
    ranked = np.take_along_axis(positive, np.argsort(scores, axis=1), axis=1)
    ups = np.count_nonzero(positive, axis=1).astype(np.float64)
    ranks = ranked @ np.arange(1.0, rows + 1)
    return np.asarray((ranks - ups * (ups + 1) / 2) / (ups * (rows - ups)))


def _auc_error(scores: Sequence[Matrix], positive: Sequence[Flags]) -> float:
    """The standard error of the mean AUC of the folds (DeLong 1988), as if their models were given."""
    variance = 0.0
    for values, up in zip(scores, positive, strict=True):
        ours, theirs = np.sort(values[up]), np.sort(values[~up])
        for a, b in ((ours, theirs), (theirs, ours)):
            places = (np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")) / (2 * len(b))
            variance += places.var() / len(a)
    return float(np.sqrt(variance)) / len(scores)


class _Test(NamedTuple):
    """The p-value, which way of scoring stands out most, and how far that one's AUC spreads by chance."""

    p_value: float
    way: int
    spread: float


def _significance(aucs: Floats, given: int) -> _Test:
    """Whether the best of all ways stands out.

    aucs: a row per way of scoring; a column for the labels as they are, one for each other window, then permutations.
    """
    chance = aucs[:, given:]
    spread = np.maximum(chance.std(axis=1, keepdims=True), 1e-9)
    standing = (aucs - chance.mean(axis=1, keepdims=True)) / spread
    best, way = standing.max(axis=0), int(standing[:, 0].argmax())
    p_value = (1 + np.count_nonzero(best[given:] >= best[0])) / (1 + chance.shape[1])
    if given > 1:
        # What windows that wander are apart by goes with the square of how far they went; its root is less skewed.
        roots = np.sqrt(1 + np.maximum(standing[:, :given], 0))
        error = roots[:, 1:].std(axis=1, ddof=1) * np.sqrt(1 + 1 / (given - 1))
        t = (roots[:, 0] - roots[:, 1:].mean(axis=1)) / np.maximum(error, 1e-9)
        p_value = max(p_value, min(1.0, len(roots) * float(stdtr(given - 2, -t).min())))
    return _Test(float(p_value), way, float(spread[way, 0]))


# What it rests on


def _parts(
    features: Sequence[_Feature], designs: Sequence[_Design], fits: Sequence[Sequence[_Fold]], is_current: Flags
) -> tuple[Part, ...]:
    found = [_distances(design, fit, is_current) for design, fit in zip(designs, fits, strict=True)]
    of = [part for design in designs for part in design.parts]
    distance, error = np.concatenate(found, axis=1)
    # The folds' models share rows, so the errors of their distances add up rather than cancel.
    surely = distance > -ndtri(SIGNIFICANT / len(of)) * np.sqrt(2) * error
    largest = [i for i in np.argsort(-distance, kind="stable").tolist() if surely[i]][:MOST_PARTS]
    total = float(distance.sum())
    return tuple(_part([features[f] for f in of[i]], float(distance[i]) / total, is_current) for i in largest)


def _distances(design: _Design, fit: Sequence[_Fold], is_current: Flags) -> Floats:
    """What each part adds to the distance between the mean scores of held-out rows, and its error."""
    means, variances = [], []
    for fold in fit:
        by_part = np.add.reduceat(design.values[fold.rows] * fold.weights, design.starts, axis=1)
        sides = [by_part[is_current[fold.rows]], by_part[~is_current[fold.rows]]]
        means.append(sides[0].mean(axis=0) - sides[1].mean(axis=0))
        variances.append(sum(side.var(axis=0) / len(side) for side in sides))
    return np.array([np.mean(means, axis=0), np.sqrt(np.sum(variances, axis=0)) / len(fit)], np.float64)


def _part(features: Sequence[_Feature], share: float, is_current: Flags) -> Part:
    cells, codes = [""], np.zeros(len(is_current), np.int64)
    for f in features:
        cells = [f"{one} and {more}" if one else more for one in cells for more in f.cells]
        codes = codes * len(f.cells) + f.codes
    now, then = (np.bincount(codes[side], minlength=len(cells)) for side in (is_current, ~is_current))
    shares, before = now / now.sum(), then / then.sum()
    most = int(np.argmax((shares - before) ** 2 / np.maximum(now + then, 1)))
    return Part(
        tuple(f.name for f in features), share, Contribution(cells[most], float(before[most]), float(shares[most]))
    )
