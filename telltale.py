"""Telltale: watches models in production, names the version and server at fault, and proves a rollback.

In a notebook:

>>> import polars as pl
>>> import telltale
>>> january = pl.DataFrame({"amount": range(1000), "country": ["NL"] * 750 + ["BE"] * 250})
>>> february = january.with_columns(country=pl.Series(["NL"] * 650 + ["BE"] * 350))
>>> telltale.compare(january, february)
1 of 2 columns drifted (1,000 reference rows, 1,000 current rows; chance of any false alarm 0.05)
  column   what changed  most in             distance  p
  country  level         BE: 25.0% to 35.0%  0.093     2.1e-06
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from detectors.report import Report

__all__ = ["compare"]


def compare(reference: Any, current: Any, false_alarms: float = 0.05) -> Report:
    """Which columns of two tables differ by more than chance.

    It gives a report: ``.drifted`` (column names, worst first), ``.findings``, ``.judged``, ``.to_pandas()``,
    ``.to_dict()``, and a readable text. See ``detectors.compare.compare_frames`` for what it sees and what it does not.
    With fewer than 200 rows on a side nothing is judged.

    reference, current
        pandas, polars or pyarrow tables. In pandas a NaN is a missing value, as pandas means it; elsewhere it is a
        number that is not finite.
    false_alarms
        The chance of any false alarm, over all columns together.

    Raises TypeError for anything that is not such a table, ValueError for a column name that occurs twice, or where
    ``false_alarms`` is not between 0 and 1.
    """
    from detectors.compare import compare_frames

    return compare_frames(_polars(reference, "reference"), _polars(current, "current"), false_alarms)


def _polars(table: Any, role: str) -> pl.DataFrame:
    import polars as pl

    if isinstance(table, pl.DataFrame):
        return table
    library = type(table).__module__.partition(".")[0]
    if library == "pandas" and hasattr(table, "columns"):
        names, columns = list(table.columns), [table.iloc[:, i] for i in range(table.shape[1])]
    elif library == "pyarrow" and hasattr(table, "column_names"):
        names, columns = table.column_names, table.columns
    else:
        raise TypeError(f"{role} is a {type(table).__name__}; give a pandas, polars or pyarrow table")
    names = [str(name) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{role} has more than one column named {twice[0]!r}")
    return pl.DataFrame([_series(n, c, library) for n, c in zip(names, columns, strict=True)])


def _series(name: str, values: Any, library: str) -> pl.Series:
    """A column; one that has no common type for its values becomes objects, which are not compared."""
    import polars as pl

    values = values.sparse.to_dense() if hasattr(values, "sparse") else values
    try:
        return pl.Series(name, pl.from_pandas(values) if library == "pandas" else pl.from_arrow(values))
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, NotImplementedError):
        return pl.Series(name, list(values), dtype=pl.Object)
