"""Where rows, profiles and findings are kept. One small interface; each engine is one file beside this one.

SQL lives in ``queries/NAME.sql`` with ``{name:Type}`` parameters, and in ``migrations/NNNN_name.sql``,
one statement each, applied in order and never changed afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Protocol

import polars as pl

Parameter = str | int | float | datetime | Sequence[int]


class StoreError(Exception):
    """The store refused or could not be reached. The message names the statement and the engine's reason."""


class StoreBusyError(StoreError):
    """Another process owns the embedded data folder."""


class StoreUnavailableError(StoreError):
    """The server cannot be reached, does not answer in time or has too much to do: the same may well succeed later."""


class Store(Protocol):
    """What the rest of the service needs of an engine. Safe to use from several threads."""

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows, of each partition all or none, and return when they are durable.

        Columns are matched by name. A missing value becomes the default where the column has no null.
        """

    def query(self, name: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows that ``queries/NAME.sql`` gives."""

    def execute(self, sql: str) -> None:
        """Run one statement that gives no rows."""

    def select(self, sql: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows of a statement that was built in code; files are for those that were not."""

    def close(self) -> None:
        """Release the engine."""


@functools.cache
def query_text(name: str) -> str:
    """The text of ``queries/NAME.sql``."""
    return resources.files(__name__).joinpath("queries", f"{name}.sql").read_text("utf-8")


def migrations() -> Iterator[tuple[int, str, str]]:
    """Number, name and statement of each migration, in order."""
    folder = resources.files(__name__).joinpath("migrations")
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        yield int(number), name, file.read_text("utf-8")


def failure(what: str, reason: str) -> str:
    """The message of a StoreError, on one line."""
    return f"{' '.join(what.split())}: {' '.join(reason.split())[:400]}"


def migrate(store: Store) -> list[str]:
    """Apply what has not been applied yet, and give the names of it. Running it again does nothing.

    What was applied is written down at the end, as each write costs as much as the statement: every statement may run
    again without harm.
    """
    store.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number UInt32, name String, applied DateTime64(3, 'UTC')) "
        "ENGINE = ReplacingMergeTree ORDER BY number"
    )
    done = set(store.select("SELECT number FROM migrations FINAL")["number"].to_list())
    missing = [migration for migration in migrations() if migration[0] not in done]
    for _, _, statement in missing:
        store.execute(statement)
    if missing:
        numbers, names, _ = zip(*missing, strict=True)
        rows = {"number": pl.Series(numbers, dtype=pl.UInt32), "name": names, "applied": datetime.now(UTC)}
        store.insert("migrations", pl.DataFrame(rows))
    return [f"{number:04} {name}" for number, name, _ in missing]
