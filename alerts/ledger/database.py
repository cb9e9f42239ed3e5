"""Opening the ledger's database, and bringing it up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from alerts.ledger.schema import metadata, schema_versions

BUSY_SECONDS = 30.0
READS_ONLY = "reads_only"
STEPS: tuple[str, ...] = ()
"""Statements that alter tables of earlier versions, one a step, never edited once released. New tables need none."""


def open_database(url: str) -> Engine:
    """The engine of a database. On SQLite, readers go on beside one writer, and writers wait for their turn."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def migrate(engine: Engine, steps: tuple[str, ...] = STEPS) -> None:
    """Bring a database up to date: missing tables are made, and the steps it has not had are run. Forward only.

    Raises RuntimeError for a database that a later Telltale has migrated.
    """
    newest = len(steps) + 1
    with engine.begin() as connection:
        metadata.create_all(connection)
        known = connection.scalar(select(func.max(schema_versions.c.version)))
        if known is not None and known > newest:
            raise RuntimeError(f"the ledger has schema {known}, this Telltale knows {newest}; use the later Telltale")
        for step in steps[(known or newest) - 1 :]:
            connection.execute(text(step))
        if known != newest:
            connection.execute(insert(schema_versions).values(version=newest))


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one with its key is there."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver then leaves it to us to begin a transaction
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first, and writes after another has written, fails at once: so take the turn up front.
    reads = connection.get_execution_options().get(READS_ONLY)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
