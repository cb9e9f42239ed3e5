"""Opening the ledger's database, and bringing it up to date.

Transactions that write take turns, on SQLite and on PostgreSQL alike. So what one reads before it writes still holds
when it writes, and the time line's ids appear in the order in which they were given.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    Table,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from alerts.ledger.records import LedgerError
from alerts.ledger.schema import metadata, schema_versions

BUSY_SECONDS = 30
IDLE_SECONDS = 20
"""A writer that pauses for longer loses its turn and all it wrote: sooner than those who wait for it give up."""
REACH = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""A server that fell silent is noticed within half a minute, not after the hours that are usual."""
TURN = 0x7E117A1E
"""The number of the lock that writers take turns by."""
READS_ONLY = "reads_only"
NEEDED = {
    "sqlite": "its folder should exist, be writable and have room, and no writer should hold it for long",
    "postgresql": "it should run there, have the database and let the user in, and no writer should hold it for long",
}
STEPS: tuple[str, ...] = ()
"""Statements that alter tables of earlier versions, one a step, never edited once released. New tables need none."""


def open_database(url: str, password: str | None = None) -> Engine:
    """The engine of a database. Readers go on beside one writer, and writers wait for their turn."""
    place = make_url(url)
    engine = _open_sqlite(place) if place.get_backend_name() == "sqlite" else _open_postgresql(place, password)
    event.listen(engine, "handle_error", _tell_plainly, retval=True)
    return engine


def migrate(engine: Engine, steps: tuple[str, ...] = STEPS) -> None:
    """Bring a database up to date: missing tables are made, and the steps it has not had are run. Forward only.

    Raises LedgerError for a database that a later Telltale has migrated.
    """
    newest = len(steps) + 1
    with engine.begin() as connection:
        metadata.create_all(connection)
        known = connection.scalar(select(func.max(schema_versions.c.version)))
        if known is not None and known > newest:
            raise LedgerError(f"the ledger has schema {known}, this Telltale knows {newest}; use the later Telltale")
        for step in steps[(known or newest) - 1 :]:
            connection.execute(text(step))
        if known != newest:
            connection.execute(insert(schema_versions).values(version=newest))


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one with its key is there."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).values(values).on_conflict_do_nothing())


def _open_sqlite(place: URL) -> Engine:
    engine = create_engine(place, connect_args={"timeout": BUSY_SECONDS})

    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver then leaves it to us to begin a transaction
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        # One that reads first, and writes after another has written, fails at once: so take the turn up front.
        connection.exec_driver_sql("BEGIN" if _reads_only(connection) else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Set the journal's mode. When several open a new file at once, SQLite refuses all but one instead of waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _open_postgresql(place: URL, password: str | None) -> Engine:
    credentials = {} if password is None else {"password": password}
    engine = create_engine(
        place.set(drivername="postgresql+psycopg"),
        connect_args=REACH | credentials,
        isolation_level="READ COMMITTED",  # each statement then sees what was written before its turn came
        pool_pre_ping=True,
    )

    def prepare(connection: Any, _: object) -> None:
        connection.execute("SET TIME ZONE 'UTC'")
        connection.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.commit()

    def begin(connection: Connection) -> None:
        if not _reads_only(connection):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TURN})")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _reads_only(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(READS_ONLY))


def _tell_plainly(context: ExceptionContext) -> LedgerError | None:
    """Where the database is what fails, and not the statement, say so."""
    if context.engine is None or not (
        context.is_disconnect or isinstance(context.sqlalchemy_exception, OperationalError)
    ):
        return None
    place = context.engine.url.set(drivername=context.dialect.name).render_as_string(hide_password=True)
    reason = " ".join(str(context.original_exception).split())
    return LedgerError(f"the ledger at {place} cannot be used: {reason}; {NEEDED[context.dialect.name]}")
