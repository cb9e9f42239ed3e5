"""evidently's own tests by name, where the extra ``[report]`` is installed. The one file that knows evidently."""

from __future__ import annotations

import os

import polars as pl

NUMERIC = ("anderson", "cramer_von_mises", "ed", "empirical_mmd", "es", "kl_div", "mannw", "t_test")
LEVELS = ("fisher_exact", "kl_div", "z")
"""The tests that ``detectors.parity`` does not have.

``mannw`` sees no move downwards, ``ed`` depends on the feature's unit, ``empirical_mmd`` needs memory for the square
of the rows, and ``fisher_exact`` takes two levels, and as many rows on both sides.
"""


class EvidentlyError(ValueError):
    """The test could not be made; the message says why."""


def evidently_test(name: str, reference: pl.Series, current: pl.Series) -> float:
    """The drift score that evidently gives two columns without missing values: a p-value, or a distance.

    evidently tells its makers of its use unless ``DO_NOT_TRACK`` is set; it is set here.

    Raises EvidentlyError where evidently is not installed, cannot be imported beside this pandas, or refuses the
    rows.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        from evidently.legacy.calculations.stattests import get_stattest
        from evidently.legacy.core import ColumnType
    except (ImportError, AttributeError) as error:  # the latter with a pandas that it does not know
        reason = f"{type(error).__name__}: {error}"
        raise EvidentlyError(f"evidently cannot be loaded ({reason}); install the extra [report]") from None
    numeric = reference.dtype.is_numeric() and current.dtype.is_numeric()
    kind = ColumnType.Numerical if numeric else ColumnType.Categorical
    try:
        both = (reference.to_pandas(), current.to_pandas())
        return float(get_stattest(*both, kind, name)(*both, kind, None).drift_score)
    except ValueError as error:
        raise EvidentlyError(f"evidently's {name} refuses these rows: {error}") from None
