"""Two tools' drift statistics on raw rows, number for number, defects included.

For those who move here and want their old numbers beside the new ones. Nothing in Telltale decides by them: their
cells depend on the current rows, none has a threshold that holds for another number of rows, and several are wrong in
ways that are said below. ``detectors.effects`` has statistics that mean the same in each window.

``evidently`` is evidently 0.7.23's ``ValueDrift``, ``nannyml`` NannyML 0.13.1's univariate drift of one chunk; both
equal them to 1e-9 on the columns of ``tests/support/peer_frames.py``. Columns of numbers are numeric to them, all
others are levels; numbers that are codes must be given as text. Both leave missing values out, so that neither sees a
change of their share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Rows = NDArray[np.generic]
"""Usable values: numbers, or texts."""

EVIDENTLY_FEW_VALUES = 20
EVIDENTLY_LEAST_SD = 0.001
EVIDENTLY_PERMUTATIONS = 1_000
NANNYML_MANY_ROWS = 10_000
NANNYML_CELLS = 10_000
SMALLEST_SHARE = 1e-4


class ParityError(ValueError):
    """The tool has no such statistic for these rows; the message says what it has, or why it gives none."""


def evidently(method: str, reference: pl.Series, current: pl.Series) -> float:
    """What evidently gives as the drift score of two columns, by its name of the method.

    Infinite numbers are left out as well. Of numbers ``psi`` and ``jensenshannon`` take equal-width cells (Sturges'
    rule) between the least and greatest value of both columns, so one far value puts all others into one cell; with
    at most 20 different values in the reference, and for levels, each value is a cell.

    ``psi``
        Its sum over cells. A share of zero becomes 1e-4, or a millionth of the least other share where that is 1e-4
        or less; the shares then do not add up to 1. So one row in a cell that was empty weighs anything, by how many
        rows there are.
    ``jensenshannon``
        The distance in nats, at most 0.8326: 0.83 times the distance to base 2.
    ``hellinger``
        Of numbers over cells as above, but as many as Sturges' rule gives for the number of *different* values, and
        of whole numbers at least 1 wide: a feature of 0 and 1 has a single cell and never differs.
    ``ks``
        Numbers: the two-sided p-value.
    ``wasserstein``
        Numbers: the distance over the reference's standard deviation, or over 0.001 if that is larger, so that
        features on a small scale never drift.
    ``chisquare``
        Levels: the p-value of the current counts against the reference's shares as if those were known exactly.
        Without any drift it is below 0.05 in a fifth of cases with as many rows on both sides, and in more with a
        smaller reference. A new level gives 0.
    ``g_test``
        Levels: the same with the likelihood ratio, only where both columns have the same number of rows.
    ``TVD``
        Levels: the share of 1,000 permutations, always the same ones, whose total variation is at least the observed
        one. Rounding decides ties: in evidently's own order, which changes from run to run, and here in the order of
        levels.

    Raises ParityError where evidently has no number.

    >>> before, after = pl.Series(["a", "a", "b", "b"]), pl.Series(["a", "a", "a", "b"])
    >>> round(evidently("psi", before, after), 6)
    0.274653
    """
    numeric = reference.dtype.is_numeric() and current.dtype.is_numeric()
    known = EVIDENTLY_NUMERIC if numeric else EVIDENTLY_LEVELS
    r, c = _usable(reference, numeric=numeric), _usable(current, numeric=numeric)
    return _named(known, method, "evidently", numeric=numeric)(r, c)


def nannyml(method: str, reference: pl.Series, current: pl.Series) -> float:
    """What NannyML gives as the value of two columns, the current one being one chunk, by its name of the method.

    Infinite numbers, on most of which NannyML fails, are left out. It compares values with limits of three standard
    deviations over chunks of the reference, not with what chance gives.

    ``jensen_shannon``
        The distance to base 2. Of numbers over equal-width cells (Doane's rule) between the least and greatest value
        of the reference; all values outside them are one more cell, and so are all new levels.
    ``hellinger``
        Over the same cells.
    ``kolmogorov_smirnov``
        Numbers: the D statistic. With 10,000 or more reference rows only over 10,000 equal-width cells: of a
        reference with a far tail most rows are then in few of them, and D is too small.
    ``wasserstein``
        Numbers: the distance in the feature's own unit. With 10,000 or more reference rows over such cells, where
        rows outside the reference's range count one too many on each side.
    ``chi2``
        Levels: Pearson's statistic of the two-sample table, with Yates' correction where there are two levels.
    ``l_infinity``
        Levels: the greatest difference of a level's shares.

    Raises ParityError where NannyML has no number.

    >>> nannyml("l_infinity", pl.Series(["a", "a", "b", "b"]), pl.Series(["a", "a", "a", "b"]))
    0.25
    """
    numeric = reference.dtype.is_numeric() and current.dtype.is_numeric()
    known = NANNYML_NUMERIC if numeric else NANNYML_LEVELS
    r, c = _usable(reference, numeric=numeric), _usable(current, numeric=numeric)
    return _named(known, method, "NannyML", numeric=numeric)(r, c)


def _named(
    known: Mapping[str, Callable[[Rows, Rows], float]], method: str, tool: str, *, numeric: bool
) -> Callable[[Rows, Rows], float]:
    if method not in known:
        kind = "numbers" if numeric else "levels"
        raise ParityError(f"{tool} has no {method!r} of {kind}; it has {', '.join(known)}")
    return known[method]


def _usable(values: pl.Series, *, numeric: bool) -> Rows:
    """The finite numbers or the texts. Whole numbers among which some are missing are floating point, as in pandas."""
    if values.dtype.is_integer() and values.null_count():
        values = values.cast(pl.Float64)
    kept = values.drop_nulls()
    if kept.dtype.is_float():
        kept = kept.filter(kept.is_finite())
    if kept.is_empty():
        raise ParityError("a column has no usable value")
    return kept.to_numpy() if numeric else kept.cast(pl.String).to_numpy().astype(np.str_)


def _counts(r: Rows, c: Rows) -> tuple[Numbers, Numbers]:
    """How often each value is in either column, in the order of values."""
    values, at = np.unique(np.concatenate([r, c]), return_inverse=True)
    both = (np.bincount(at[: len(r)], minlength=len(values)), np.bincount(at[len(r) :], minlength=len(values)))
    return both[0].astype(np.float64), both[1].astype(np.float64)


def _evidently_shares(r: Rows, c: Rows) -> tuple[Numbers, Numbers]:
    if r.dtype.kind != "U" and len(np.unique(r)) > EVIDENTLY_FEW_VALUES:
        edges = np.histogram_bin_edges(np.concatenate([r, c]), bins="sturges")
        p, q = np.histogram(r, edges)[0].astype(np.float64), np.histogram(c, edges)[0].astype(np.float64)
    else:
        p, q = _counts(r, c)
    return p / len(r), q / len(c)


def _evidently_psi(r: Rows, c: Rows) -> float:
    p, q = (_without_zeros(shares) for shares in _evidently_shares(r, c))
    return float((p - q) @ np.log(p / q))


def _without_zeros(shares: Numbers) -> Numbers:
    least = float(shares[shares > 0].min())
    return np.where(shares > 0, shares, least / 1e6 if least <= SMALLEST_SHARE else SMALLEST_SHARE)


def _evidently_jensen_shannon(r: Rows, c: Rows) -> float:
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(*_evidently_shares(r, c)))


def _evidently_hellinger(r: Rows, c: Rows) -> float:
    if r.dtype.kind == "U":
        p, q = _counts(r, c)
    else:
        edges = np.histogram_bin_edges(np.unique(np.concatenate([r, c])), bins="sturges")
        p, q = np.histogram(r, edges)[0].astype(np.float64), np.histogram(c, edges)[0].astype(np.float64)
    affinity = float(np.sqrt(p / len(r) * (q / len(c))).sum())
    return math.sqrt(1 - min(1.0, affinity))


def _evidently_ks(r: Rows, c: Rows) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(r, c).pvalue)


def _evidently_wasserstein(r: Rows, c: Rows) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(r, c)) / max(float(np.std(r.astype(np.float64))), EVIDENTLY_LEAST_SD)


def _evidently_chi_square(r: Rows, c: Rows) -> float:
    expected, observed = _counts(r, c)
    return _goodness_of_fit(observed, expected * (len(c) / len(r)), "pearson")


def _evidently_g(r: Rows, c: Rows) -> float:
    if len(r) != len(c):
        raise ParityError(f"evidently's g_test needs as many rows on both sides, not {len(r)} and {len(c)}")
    expected, observed = _counts(r, c)
    return _goodness_of_fit(observed, expected, "log-likelihood")


def _goodness_of_fit(observed: Numbers, expected: Numbers, of: str) -> float:
    from scipy.stats import power_divergence

    with np.errstate(divide="ignore"):  # a level that the reference does not have
        return float(power_divergence(observed, expected, lambda_=of).pvalue)


def _evidently_total_variation(r: Rows, c: Rows) -> float:
    values, at = np.unique(np.concatenate([r, c]), return_inverse=True)
    total = np.bincount(at, minlength=len(values))
    chance = np.random.RandomState(0)

    def distance(rows: NDArray[np.intp]) -> float:
        first = np.bincount(rows, minlength=len(values))
        return 0.5 * float(np.abs(first / len(r) - (total - first) / len(c)).sum())

    observed = distance(at[: len(r)])
    dealt = (at[chance.permutation(len(at))[: len(r)]] for _ in range(EVIDENTLY_PERMUTATIONS))
    return sum(distance(rows) >= observed for rows in dealt) / EVIDENTLY_PERMUTATIONS


EVIDENTLY_NUMERIC: Mapping[str, Callable[[Rows, Rows], float]] = {
    "psi": _evidently_psi,
    "jensenshannon": _evidently_jensen_shannon,
    "hellinger": _evidently_hellinger,
    "ks": _evidently_ks,
    "wasserstein": _evidently_wasserstein,
}
EVIDENTLY_LEVELS: Mapping[str, Callable[[Rows, Rows], float]] = {
    "psi": _evidently_psi,
    "jensenshannon": _evidently_jensen_shannon,
    "hellinger": _evidently_hellinger,
    "chisquare": _evidently_chi_square,
    "g_test": _evidently_g,
    "TVD": _evidently_total_variation,
}


def _nannyml_shares(r: Rows, c: Rows) -> tuple[Numbers, Numbers]:
    """Over the reference's cells, with one more for what is outside them, also where that is no more than rounding."""
    if r.dtype.kind == "U":
        counts, others = _counts(r, c)
        p, q = counts[counts > 0] / len(r), others[counts > 0] / len(c)
    else:
        edges = np.histogram_bin_edges(r.astype(np.float64), bins="doane")
        p, q = np.histogram(r, edges)[0] / len(r), np.histogram(c, edges)[0] / len(c)
    outside = 1 - q.sum()
    return (np.append(p, 0.0), np.append(q, outside)) if outside > 0 else (p, q)


def _nannyml_jensen_shannon(r: Rows, c: Rows) -> float:
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(*_nannyml_shares(r, c), base=2))


def _nannyml_hellinger(r: Rows, c: Rows) -> float:
    p, q = _nannyml_shares(r, c)
    return math.sqrt(float(((np.sqrt(p) - np.sqrt(q)) ** 2).sum()) / 2)


def _nannyml_ks(r: Rows, c: Rows) -> float:
    from scipy.stats import ks_2samp

    if len(r) < NANNYML_MANY_ROWS:
        return float(ks_2samp(r, c).statistic)
    edges = np.linspace(r.min(), r.max(), NANNYML_CELLS + 1)
    below = np.count_nonzero(c < edges[0]) / len(c)
    p, q = (np.cumsum(np.histogram(rows, edges)[0] / len(rows)) for rows in (r, c))
    return float(np.abs(p - (below + q)).max())


def _nannyml_wasserstein(r: Rows, c: Rows) -> float:
    from scipy.stats import wasserstein_distance

    if len(r) < NANNYML_MANY_ROWS:
        return float(wasserstein_distance(r, c))
    counts, edges = np.histogram(r, bins=NANNYML_CELLS)
    below, above = c[c < edges[0]], c[c > edges[-1]]
    share_below = (len(below) + 1) / len(c) if len(below) else 0.0
    share_above = (len(above) + 1) / len(c) if len(above) else 0.0
    p = np.cumsum(counts / len(r))
    q = share_below + np.cumsum(np.histogram(c, edges)[0] / len(c))
    within = float(np.abs(p - q).sum() * (edges[1] - edges[0]))
    return within + share_below * _mean_distance(below, edges[0]) + share_above * _mean_distance(above, edges[-1])


def _mean_distance(rows: NDArray[Any], end: float) -> float:
    """Of the rows and the end itself, from the end."""
    return float(np.abs(rows - end).sum()) / (len(rows) + 1)


def _nannyml_chi_square(r: Rows, c: Rows) -> float:
    from scipy.stats import chi2_contingency

    return float(chi2_contingency(np.array(_counts(r, c))).statistic)


def _nannyml_l_infinity(r: Rows, c: Rows) -> float:
    p, q = _counts(r, c)
    return float(np.abs(p / len(r) - q / len(c)).max())


NANNYML_NUMERIC: Mapping[str, Callable[[Rows, Rows], float]] = {
    "jensen_shannon": _nannyml_jensen_shannon,
    "hellinger": _nannyml_hellinger,
    "kolmogorov_smirnov": _nannyml_ks,
    "wasserstein": _nannyml_wasserstein,
}
NANNYML_LEVELS: Mapping[str, Callable[[Rows, Rows], float]] = {
    "jensen_shannon": _nannyml_jensen_shannon,
    "hellinger": _nannyml_hellinger,
    "chi2": _nannyml_chi_square,
    "l_infinity": _nannyml_l_infinity,
}
