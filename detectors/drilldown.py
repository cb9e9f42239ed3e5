"""One feature's rows in two spans, by any test that somebody wants to see. For people; nothing is decided by it.

The p-values hold for independent rows, and for one test that was chosen before looking: of twenty tests one is below
0.05 by chance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors import evidently_tests, parity
from detectors.effects import named_statistics
from detectors.pooled import NOTHING, holds, pooled_counts

Rows = NDArray[np.float64]


class DrilldownError(ValueError):
    """The test does not exist, or cannot be made on these rows; the message says what there is, or why."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one feature's rows.

    statistics
        The named statistics of ``detectors.effects``, over cells of the rows of both sides together, missing ones
        included.
    statistic, p_value
        Of the test, which leaves missing and not finite values out; None where it has none.
    """

    test: str
    statistic: float | None
    p_value: float | None
    rows_reference: int
    rows: int
    missing_reference: float
    missing: float
    statistics: Mapping[str, float]


def explain(reference: pl.Series, current: pl.Series, test: str = "") -> Explanation:
    """Two columns of one feature side by side, and a test of them.

    test
        A function of ``scipy.stats`` (``NUMERIC``, ``LEVELS``), or another tool's: ``evidently:psi``,
        ``nannyml:hellinger``. For most of those see ``detectors.parity``; the rest of evidently's need the extra
        ``[report]``. Without a name it is ``ks_2samp`` of numbers and ``chi2_contingency`` of levels. ``ttest_ind``
        is Welch's, ``chi2_contingency`` without Yates' correction.

    Raises DrilldownError.

    >>> moved = explain(pl.Series(range(500)), pl.Series(range(100, 600)), "mannwhitneyu")
    >>> moved.p_value < 1e-20, round(moved.statistics["kolmogorov_smirnov"], 2)
    (True, 0.2)
    """
    for side, values in (("reference", reference), ("current", current)):
        if holds(values) in ("", NOTHING):
            raise DrilldownError(f"the {side} rows have no value that can be tested, of {len(values)} rows")
    counted = pooled_counts("", reference, current)
    r, c = _usable(reference), _usable(current)
    if r.is_empty() or c.is_empty():
        raise DrilldownError("one side has no finite value")
    numeric = r.dtype.is_numeric() and c.dtype.is_numeric()
    if not numeric:
        r, c = r.cast(pl.String), c.cast(pl.String)
    test = test or ("ks_2samp" if numeric else "chi2_contingency")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a p-value is cut off, or not exact; that there is none is said below
            statistic, p_value = _test(test, numeric=numeric)(r, c)
    except ValueError as error:
        raise DrilldownError(f"{test}: {error}") from None
    except IndexError:  # anderson_ksamp of one row on each side
        statistic, p_value = math.nan, None
    if any(value is not None and not math.isfinite(value) for value in (statistic, p_value)):
        raise DrilldownError(
            f"{test}: has no finite value for these rows; there are too few of them, or they are all alike"
        )
    return Explanation(
        test,
        statistic,
        p_value,
        len(reference),
        len(current),
        reference.null_count() / len(reference),
        current.null_count() / len(current),
        named_statistics(counted.cells, counted.baseline.astype(np.float64), counted.current.astype(np.float64)),
    )


def names_of_tests(*, numeric: bool) -> tuple[str, ...]:
    """The names of all tests of numbers, or of levels."""
    evidently = parity.EVIDENTLY_NUMERIC if numeric else parity.EVIDENTLY_LEVELS
    nannyml = parity.NANNYML_NUMERIC if numeric else parity.NANNYML_LEVELS
    more = evidently_tests.NUMERIC if numeric else evidently_tests.LEVELS
    return (
        *(NUMERIC if numeric else LEVELS),
        *(f"evidently:{name}" for name in sorted({*evidently, *more})),
        *(f"nannyml:{name}" for name in nannyml),
    )


Tested = tuple[float | None, float | None]


def _test(name: str, *, numeric: bool) -> Callable[[pl.Series, pl.Series], Tested]:
    if name not in names_of_tests(numeric=numeric):
        kind = "numbers" if numeric else "levels"
        raise ValueError(f"there is no such test of {kind}; there are {', '.join(names_of_tests(numeric=numeric))}")
    tool, _, method = name.rpartition(":")
    if tool == "nannyml":
        return lambda r, c: (parity.nannyml(method, r, c), None)
    if tool == "evidently":
        ours = method in (parity.EVIDENTLY_NUMERIC if numeric else parity.EVIDENTLY_LEVELS)
        found = parity.evidently if ours else evidently_tests.evidently_test
        return lambda r, c: (found(method, r, c), None)
    if numeric:
        return lambda r, c: NUMERIC[name](r.cast(pl.Float64).to_numpy(), c.cast(pl.Float64).to_numpy())
    return LEVELS[name]


def _usable(values: pl.Series) -> pl.Series:
    """Finite numbers, ticks of times, or texts."""
    kept = values.drop_nulls()
    if kept.dtype.is_float():
        return kept.filter(kept.is_finite())
    if kept.dtype.is_temporal():
        return kept.to_physical()
    return kept if kept.dtype.is_numeric() else kept.cast(pl.String)


def _scipy(name: str, **options: Any) -> Callable[[Rows, Rows], Tested]:
    def test(r: Rows, c: Rows) -> Tested:
        import scipy.stats

        found = getattr(scipy.stats, name)(c, r, **options)
        return float(found.statistic), float(found.pvalue)

    return test


def _energy_distance(r: Rows, c: Rows) -> Tested:
    from scipy.stats import energy_distance

    return float(energy_distance(c, r)), None


def _wasserstein_distance(r: Rows, c: Rows) -> Tested:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(c, r)), None


def _anderson_ksamp(r: Rows, c: Rows) -> Tested:
    from scipy.stats import anderson_ksamp

    found = anderson_ksamp([r, c])
    return float(found.statistic), float(found.pvalue)


def _chi2_contingency(r: pl.Series, c: pl.Series) -> Tested:
    from scipy.stats import chi2_contingency

    levels, at = np.unique(pl.concat([r, c]).to_numpy().astype(np.str_), return_inverse=True)
    table = [np.bincount(side, minlength=len(levels)) for side in (at[: len(r)], at[len(r) :])]
    found = chi2_contingency(table, correction=False)
    return float(found.statistic), float(found.pvalue)


NUMERIC: Mapping[str, Callable[[Rows, Rows], Tested]] = {
    "ks_2samp": _scipy("ks_2samp"),
    "mannwhitneyu": _scipy("mannwhitneyu"),
    "cramervonmises_2samp": _scipy("cramervonmises_2samp"),
    "anderson_ksamp": _anderson_ksamp,
    "epps_singleton_2samp": _scipy("epps_singleton_2samp"),
    "energy_distance": _energy_distance,
    "wasserstein_distance": _wasserstein_distance,
    "ttest_ind": _scipy("ttest_ind", equal_var=False),
    "brunnermunzel": _scipy("brunnermunzel"),
    "levene": _scipy("levene"),
    "fligner": _scipy("fligner"),
    "mood": _scipy("mood"),
    "ansari": _scipy("ansari"),
    "kruskal": _scipy("kruskal"),
    "median_test": _scipy("median_test"),
}
LEVELS: Mapping[str, Callable[[pl.Series, pl.Series], Tested]] = {"chi2_contingency": _chi2_contingency}
