"""The scores of one feature: each asks one question of two count vectors, with a p-value and an effect.

Both sides are taken as independent rows. Autocorrelated or seasonal windows differ more than that, and look drifted.
Source: permutation (hypergeometric) standardisation of rank scores and of chi-square; rare cells by exact tails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.layout import FeatureCells
from detectors.tails import chi_square_log_p, hypergeometric_log_p, one_sided_z, sum_z, two_sided_p, two_sided_z

Floats = NDArray[np.float64]

SMALLEST_EXPECTED = 5.0
"""Rows that both sides must be expected to have in a cell before it is judged by an approximation."""
SMALLEST_COUNT = 1e-9
"""Weighted rows in a cell that are none."""
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


def feature_scores(cells: FeatureCells, baseline: Floats, current: Floats) -> list[Score]:
    """All questions that the two vectors can answer; none for a feature that is the same constant on both sides.

    States (missing, unusable) are judged over all rows, everything else over the rows with a usable value. A question
    that has no answer, such as the scale of a feature with two values, gives no score, neither 0 nor NaN.
    """
    scores = list(_state_scores(cells, baseline, current))
    c, r = current[: cells.valued], baseline[: cells.valued]
    if not (c.any() and r.any()):
        return scores
    scores += _unseen_scores(cells, r, c)
    scores += _ordered_scores(r[: cells.ordered], c[: cells.ordered]) if cells.ordered else _level_scores(cells, r, c)
    scores += _shape_scores(r, c)
    return scores


def _state_scores(cells: FeatureCells, r: Floats, c: Floats) -> Iterator[Score]:
    n, m = float(c.sum()), float(r.sum())
    missing = cells.state("missing")
    for component, where in (("missing", slice(missing, missing + 1)), ("unusable", slice(missing + 1, None))):
        yield from _share_score(component, float(c[where].sum()), float(r[where].sum()), n, m)


def _unseen_scores(cells: FeatureCells, r: Floats, c: Floats) -> Iterator[Score]:
    where = list(cells.unseen)
    n, m = float(c.sum()), float(r.sum())
    hits, baseline_hits = float(c[where].sum()), float(r[where].sum())
    if not baseline_hits and cells.ordered:
        baseline_hits = min(_left_out(cells, r), hits * m / n)
    yield from _share_score("unseen", hits, baseline_hits, n, m)


def _left_out(cells: FeatureCells, r: Floats) -> float:
    """Baseline rows to count as unseen where the range, or the values, were taken from the baseline itself.

    Such a baseline has none by construction, but a value that it has once would be unseen in the others (Good 1953).
    For bins, P(at least j rows outside) = P(at most one of j + 1 random rows is of the baseline). These rows only
    excuse what the current side has; they never make it look too little.
    """
    singles = float((r[: cells.ordered] == 1).sum()) if cells.points else 0.0
    return max(1.0, singles)


def _share_score(component: str, hits: float, baseline_hits: float, n: float, m: float) -> Iterator[Score]:
    pooled = hits + baseline_hits
    if 0 < pooled < n + m:
        log_p = hypergeometric_log_p(np.array([hits]), np.array([pooled]), n, m)
        yield _from_tail(component, float(log_p[0]), hits / n - baseline_hits / m)


def _from_tail(component: str, log_p: float, effect: float) -> Score:
    return Score(component, math.exp(log_p), math.copysign(two_sided_z(log_p), effect), effect)


def _ordered_scores(r: Floats, c: Floats) -> Iterator[Score]:
    used = c + r > SMALLEST_COUNT
    c, r = c[used], r[used]
    n, m = float(c.sum()), float(r.sum())
    if n == 0 or m == 0 or len(c) < 2:
        return
    w = (c + r) / (n + m)
    u = np.cumsum(w) - w / 2 - 0.5
    difference = c / n - r / m
    location = u / math.sqrt(float(w @ (u * u)))
    location_effect = float(difference @ u)
    if len(c) > 2 and _approximable(w, location, n, m):
        yield _from_sum("location", w, location, c, n, m, location_effect)
    else:
        rest = np.arange(len(w)) != int(w.argmax())
        log_p = hypergeometric_log_p(np.array([c[rest].sum()]), np.array([(c + r)[rest].sum()]), n, m)
        yield _from_tail("location", float(log_p[0]), location_effect)
    if len(c) < 3:
        return
    squares = u * u - float(w @ (u * u))
    residual = squares - float(w @ (squares * location)) * location
    variance = float(w @ (residual * residual))
    if variance < SMALLEST_RESIDUAL * float(w @ u**4):
        return
    scale = residual / math.sqrt(variance)
    if _approximable(w, scale, n, m):
        yield _from_sum("scale", w, scale, c, n, m, 2 * float(difference @ np.abs(u)))


def _approximable(w: Floats, score: Floats, n: float, m: float) -> bool:
    """Whether enough rows share the score's weight; for a score of one rare cell this is "expected at least 5"."""
    return float(w @ score**4) * SMALLEST_EXPECTED <= min(n, m)


def _from_sum(component: str, w: Floats, score: Floats, c: Floats, n: float, m: float, effect: float) -> Score:
    z = sum_z(float(c @ score), float(w @ score**3), n, m)
    return Score(component, two_sided_p(z), z, effect)


def _level_scores(cells: FeatureCells, r: Floats, c: Floats) -> Iterator[Score]:
    n, m = float(c.sum()), float(r.sum())
    pooled = c + r
    occupied = int((pooled > 0).sum())
    levels = np.flatnonzero(pooled[: len(cells.levels) + 1])
    if occupied < 2 or len(levels) < 2:
        return
    log_p = hypergeometric_log_p(c[levels], pooled[levels], n, m)
    worst = int(log_p.argmin())
    tests = 1 if occupied == 2 else len(levels)
    effect = float(c[levels[worst]] / n - r[levels[worst]] / m)
    yield _from_tail("level", min(0.0, math.log(tests) + float(log_p[worst])), effect)


def _shape_scores(r: Floats, c: Floats) -> Iterator[Score]:
    n, m = float(c.sum()), float(r.sum())
    c, pooled = _pool_small(c, c + r, SMALLEST_EXPECTED * (n + m) / min(n, m))
    if len(c) < 3:
        return
    expected = n * pooled / (n + m)
    statistic = float(((c - expected) ** 2 / expected).sum()) * (n + m - 1) / m
    degrees = len(c) - 1
    above_chance = max(0.0, statistic - degrees) * (1 / n + 1 / m) / (8 * math.log(2))
    log_p = chi_square_log_p(statistic, degrees)
    yield Score("shape", math.exp(log_p), one_sided_z(log_p), math.sqrt(min(1.0, above_chance)))


def _pool_small(c: Floats, pooled: Floats, smallest: float) -> tuple[Floats, Floats]:
    """The cells with ``smallest`` pooled rows or more, and the others as one, which joins the least if still small."""
    large = pooled >= smallest
    rest_c, rest = float(c[~large].sum()), float(pooled[~large].sum())
    c, pooled = c[large], pooled[large]
    if rest >= smallest:
        return np.append(c, rest_c), np.append(pooled, rest)
    if rest > 0 and len(c):
        least = int(pooled.argmin())
        c[least] += rest_c
        pooled[least] += rest
    return c, pooled
