"""The scores of features: each asks one question of two count vectors, with a p-value and an effect.

Both sides are taken as independent rows. Autocorrelated or seasonal windows differ more than that, and look drifted.
Source: permutation (hypergeometric) standardisation of rank scores and of chi-square; rare cells by exact tails.
All features are judged at once, as rows of matrices with a column for each cell: it is many times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.layout import FeatureCells
from detectors.tails import (
    TINY,
    beyond_log_p,
    chi_square_log_p,
    hypergeometric_log_p,
    one_sided_z,
    sum_z,
    two_sided_log_p,
    two_sided_z,
)

Floats = NDArray[np.float64]

SMALLEST_EXPECTED = 5.0
"""Rows that both sides must be expected to have in a cell before it is judged by an approximation."""
SMALLEST_COUNT = 1e-9
"""Weighted rows in a cell that are none."""
ALMOST_ONE = 1 - 1e-12
"""A p-value of which no more is told apart from 1."""
SMALLEST_RESIDUAL = 1e-6
"""Share of the variance of the squared ranks that must be left beside the ranks, for scale to be a score of its own."""

EXPLANATION_ORDER = ("missing", "unusable", "unseen", "scale", "location", "level", "shape")
"""Which component names a change that several of them see: the first is the simplest to act on."""


@dataclass(frozen=True, slots=True)
class Score:
    """The answer to one question.

    component
        One of EXPLANATION_ORDER.
    z
        The p-value as a normal score, finite however small p is. shape has one side: -2 is "closer than chance
        gives". All others have two: the size belongs to p, the sign is that of the change (scale: beside a location
        that may have changed too, so the effect's can be another where it is small).
    effect
        Size with sign. missing, unusable, unseen, level: difference of shares. location: AUC - 1/2, which is the
        difference of mean pooled ranks. scale: the same for twice the rank's distance from the middle. shape: the
        Jensen-Shannon distance above what chance gives.
    """

    component: str
    p_value: float
    z: float
    effect: float


class Case(NamedTuple):
    """One feature's counts on both sides."""

    cells: FeatureCells
    baseline: Floats
    current: Floats


def feature_scores(cells: FeatureCells, baseline: Floats, current: Floats) -> list[Score]:
    """All questions that the two vectors can answer; none for a feature that is the same constant on both sides.

    States (missing, unusable) are judged over all rows, everything else over the rows with a usable value. A question
    that has no answer, such as the scale of a feature with two values, gives no score, neither 0 nor NaN.
    """
    return scores_of([Case(cells, baseline, current)])[0]


def scores_of(cases: Sequence[Case]) -> list[list[Score]]:
    """``feature_scores`` of each case."""
    found: list[list[Score]] = [[] for _ in cases]
    valued = [(i, case) for i, case in enumerate(cases) if _has_values(case)]
    questions = [question for i, case in enumerate(cases) for question in _about_states(i, case)]
    for i, case in valued:
        questions += _about_unseen(i, case)
        questions += () if case.cells.ordered else _about_levels(i, case)
    rare, sums = _ordered_scores(
        _Matrix.of([(i, case) for i, case in valued if case.cells.ordered], attrgetter("ordered"))
    )
    shapes = _shape_scores(_Matrix.of(valued, attrgetter("valued")), sums)
    for i, score in (*_share_scores([*questions, *rare]), *sums, *shapes):
        found[i].append(score)
    return found


class _Question(NamedTuple):
    """Whether the share of rows in a cell, or in any of some cells, differs."""

    case: int
    component: str
    hits: list[float]
    baseline_hits: list[float]
    n: float
    m: float
    effect: float | None = None
    """The difference of the shares that differ most where not given."""
    once: float = 0.0
    """Baseline rows without which their value, or so wide a range, would be unknown; above 0, ``beyond_log_p``."""


def _share_scores(questions: Sequence[_Question]) -> Iterable[tuple[int, Score]]:
    """The p-value is that of the least of as many p-values as there are shares (Sidak 1967)."""
    if not questions:
        return ()
    hits = np.array([x for q in questions for x in q.hits])
    baseline_hits = np.array([x for q in questions for x in q.baseline_hits])
    sizes = np.array([len(q.hits) for q in questions])
    n, m = np.repeat([q.n for q in questions], sizes), np.repeat([q.m for q in questions], sizes)
    log_p = hypergeometric_log_p(hits, hits + baseline_hits, n, m)
    once = np.repeat([q.once for q in questions], sizes)
    excused = once > 0
    if excused.any():
        log_p[excused] = beyond_log_p(hits[excused], once[excused], n[excused], m[excused])
    parts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True)]
    worst = [part.start + int(log_p[part].argmin()) for part in parts]
    differences = (hits / n - baseline_hits / m)[worst].tolist()
    effects = np.array([d if q.effect is None else q.effect for q, d in zip(questions, differences, strict=True)])
    least = _least_of(log_p[worst], sizes)
    names = [q.component for q in questions]
    return _scores([q.case for q in questions], names, least, np.copysign(two_sided_z(least), effects), effects)


def _least_of(log_p: Floats, count: NDArray[np.int64]) -> Floats:
    """log(1 - (1 - p)^count), also where p is too small for a float."""
    p = np.minimum(np.exp(log_p), ALMOST_ONE)
    return np.where(
        count == 1,
        log_p,
        np.where(p > TINY, np.log(np.maximum(-np.expm1(count * np.log1p(-p)), TINY)), log_p + np.log(count)),
    )


def _scores(
    cases: Iterable[int], components: str | Iterable[str], log_p: Floats, z: Floats, effects: Floats
) -> list[tuple[int, Score]]:
    names = repeat(components) if isinstance(components, str) else components
    answers = zip(cases, names, np.exp(log_p).tolist(), z.tolist(), effects.tolist(), strict=False)
    return [(case, Score(name, p_value, z, effect)) for case, name, p_value, z, effect in answers]


class _Matrix(NamedTuple):
    """Cases that answer one kind of question, a row each; cells that a case does not have, and the last, are empty."""

    case: NDArray[np.int64]
    c: Floats
    r: Floats
    n: Floats
    m: Floats

    @staticmethod
    def of(cases: Sequence[tuple[int, Case]], cells: Callable[[FeatureCells], int]) -> _Matrix:
        width = max((cells(case.cells) for _, case in cases), default=0) + 1
        c, r = np.zeros((len(cases), width)), np.zeros((len(cases), width))
        for row, (_, case) in enumerate(cases):
            leading = cells(case.cells)
            c[row, :leading], r[row, :leading] = case.current[:leading], case.baseline[:leading]
        return _Matrix(np.array([i for i, _ in cases], np.int64), c, r, c.sum(axis=1), r.sum(axis=1))

    def where(self, rows: NDArray[np.bool_]) -> _Matrix:
        return self if rows.all() else _Matrix(self.case[rows], self.c[rows], self.r[rows], self.n[rows], self.m[rows])


def _has_values(case: Case) -> bool:
    cells = case.cells.valued
    return bool(case.current[:cells].any() and case.baseline[:cells].any())


def _about_states(i: int, case: Case) -> Iterator[_Question]:
    n, m = float(case.current.sum()), float(case.baseline.sum())
    missing, *unusable = case.current[case.cells.valued :].tolist()
    baseline_missing, *baseline_unusable = case.baseline[case.cells.valued :].tolist()
    yield from _about_share(i, "missing", missing, baseline_missing, n, m)
    yield from _about_share(i, "unusable", sum(unusable), sum(baseline_unusable), n, m)


def _about_unseen(i: int, case: Case) -> Iterator[_Question]:
    cells = case.cells
    n, m = float(case.current[: cells.valued].sum()), float(case.baseline[: cells.valued].sum())
    hits = sum(float(case.current[cell]) for cell in cells.unseen)
    baseline_hits = sum(float(case.baseline[cell]) for cell in cells.unseen)
    if baseline_hits or not cells.ordered:
        yield from _about_share(i, "unseen", hits, baseline_hits, n, m)
    elif hits:
        once = _once(case)
        yield _Question(i, "unseen", [hits], [min(once, hits * m / n)], n, m, once=once)


def _once(case: Case) -> float:
    """Baseline rows to count as unseen where the range, or the values, were taken from the baseline itself.

    Such a baseline has none by construction, but a value that it has once would be unseen in the others (Good 1953),
    and of two ends one row of the baseline is the farther. They only excuse what the current side has, and never make
    it look too little.
    """
    if not case.cells.points:
        return 1.0
    baseline = case.baseline[: case.cells.ordered]
    return max(1.0, float(baseline[baseline <= 1].sum()))


def _about_share(i: int, component: str, hits: float, baseline_hits: float, n: float, m: float) -> Iterator[_Question]:
    if 0 < hits + baseline_hits < n + m:
        yield _Question(i, component, [hits], [baseline_hits], n, m)


def _about_levels(i: int, case: Case) -> Iterator[_Question]:
    c, r = case.current[: case.cells.valued], case.baseline[: case.cells.valued]
    occupied = np.flatnonzero(c + r)
    levels = occupied[occupied < case.cells.valued - 1]
    if len(levels) > 1:
        asked = levels[:1] if len(occupied) == 2 else levels
        yield _Question(i, "level", c[asked].tolist(), r[asked].tolist(), float(c.sum()), float(r.sum()))


def _ordered_scores(matrix: _Matrix) -> tuple[list[_Question], list[tuple[int, Score]]]:
    """Location and scale; a location that hangs on one rare cell is a question about how often it is not there."""
    used = matrix.c + matrix.r > SMALLEST_COUNT
    judged = (matrix.n > 0) & (matrix.m > 0) & (used.sum(axis=1) > 1)
    case, c, r, n, m = matrix.where(judged)
    used = used[judged]
    many = used.sum(axis=1) > 2
    w = np.where(used, c + r, 0.0) / (n + m)[:, None]
    u = np.cumsum(w, axis=1) - w / 2 - 0.5
    difference = c / n[:, None] - r / m[:, None]
    squares = u * u
    variance = _sum(w, squares)
    location = u / np.sqrt(variance)[:, None]
    effect = _sum(difference, u)
    smooth = many & _approximable(w, location, n, m)
    rare = [
        _about_other_values(int(case[row]), c[row], r[row], float(effect[row]))
        for row in np.flatnonzero(~smooth).tolist()
    ]
    squares = squares - variance[:, None]
    residual = squares - _sum(w, squares * location)[:, None] * location
    spread = _sum(w, residual * residual)
    own = many & (spread >= SMALLEST_RESIDUAL * _sum(w, u**4))
    scale = residual / np.sqrt(np.where(own, spread, 1.0))[:, None]
    own &= _approximable(w, scale, n, m)
    z = [sum_z(_sum(c, score), _sum(w, score**3), n, m) for score in (location, scale)]
    scale_effect = 2 * _sum(difference, np.abs(u))
    return rare, [
        *_scores(case[smooth], "location", two_sided_log_p(z[0][smooth]), z[0][smooth], effect[smooth]),
        *_scores(case[own], "scale", two_sided_log_p(z[1][own]), z[1][own], scale_effect[own]),
    ]


def _sum(weights: Floats, score: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", weights, score), dtype=np.float64)


def _approximable(w: Floats, score: Floats, n: Floats, m: Floats) -> NDArray[np.bool_]:
    """Whether enough rows share the score's weight; for a score of one rare cell this is "expected at least 5"."""
    return _sum(w, score**4) * SMALLEST_EXPECTED <= np.minimum(n, m)


def _about_other_values(i: int, c: Floats, r: Floats, effect: float) -> _Question:
    rest = np.arange(len(c)) != (c + r).argmax()
    n, m = float(c.sum()), float(r.sum())
    return _Question(i, "location", [float(c[rest].sum())], [float(r[rest].sum())], n, m, effect)


def _shape_scores(matrix: _Matrix, sums: Sequence[tuple[int, Score]]) -> list[tuple[int, Score]]:
    """What the chi-square has beside location and scale, which are questions of their own.

    With them in it, a mean that wanders from day to day would give it a tail that no calibration takes away.
    """
    explained, asked = (np.zeros(int(matrix.case.max(initial=-1)) + 1) for _ in range(2))
    for i, score in sums:
        explained[i] += score.z**2
        asked[i] += 1
    pooled = _small_pooled(matrix)
    degrees = (pooled.c + pooled.r > SMALLEST_COUNT).sum(axis=1) - 1
    own = (degrees > 1) & (degrees > asked[matrix.case])
    case, c, r, n, m = pooled.where(own)
    degrees = degrees[own]
    expected = (c + r) * (n / (n + m))[:, None]
    statistic = _sum((c - expected) ** 2, 1 / np.where(expected > 0, expected, 1.0)) * (n + m - 1) / m
    above_chance = np.maximum(0.0, statistic - degrees) * (1 / n + 1 / m) / (8 * math.log(2))
    log_p = chi_square_log_p(np.maximum(statistic - explained[case], 0.0), degrees - asked[case])
    return _scores(case, "shape", log_p, one_sided_z(log_p), np.sqrt(np.minimum(1.0, above_chance)))


def _small_pooled(matrix: _Matrix) -> _Matrix:
    """Small cells of a case are moved into one of their own, the last; if that is small too, into the least other."""
    smallest = SMALLEST_EXPECTED * (matrix.n + matrix.m) / np.minimum(matrix.n, matrix.m)
    pooled = matrix.c + matrix.r
    large = pooled >= smallest[:, None]
    c, r = np.where(large, matrix.c, 0.0), np.where(large, matrix.r, 0.0)
    rest_c, rest_r = matrix.n - c.sum(axis=1), matrix.m - r.sum(axis=1)
    least = np.where(large, pooled, np.inf).argmin(axis=1)
    into = np.where((rest_c + rest_r < smallest) & large.any(axis=1), least, pooled.shape[1] - 1)
    rows = np.arange(len(c))
    c[rows, into] += rest_c
    r[rows, into] += rest_r
    return matrix._replace(c=c, r=r)
