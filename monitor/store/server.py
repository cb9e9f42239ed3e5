"""A ClickHouse server, over its native protocol."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import polars as pl

from monitor.config import ClickHouseSpec
from monitor.store import Parameter, StoreError, StoreUnavailableError, failure, query_text
from monitor.store.cluster import replicated
from monitor.store.literals import quoted, render
from monitor.store.texts import with_texts
from monitor.store.wire import from_columns, to_columns

REVISION = 54453
"""Of the protocol: the last one without sparse columns, in which the driver reads booleans as numbers."""
CONNECT_SECONDS = 5
ANSWER_SECONDS = 60
INSERT_SETTINGS = {"async_insert": 0, "insert_deduplicate": 0, "max_partitions_per_insert_block": 0}
"""Rows are keyed; an engine that drops blocks it has seen before would drop what was removed and comes again."""
PASSING = {
    159: "timeout exceeded",
    202: "too many simultaneous queries",
    209: "timeout between servers",
    210: "network error between servers",
    236: "aborted, as the server stops",
    241: "memory limit exceeded",
    242: "table is read only for now",
    252: "too many parts",
    745: "server overloaded",
}
"""Error codes of a server that may well do the same later."""


class ServerStore:
    """A store on a ClickHouse server. Its database is there before; ``migrate`` makes the tables.

    Every call has a connection to itself; connections are used again, and made anew when the server has gone away.
    Raises StoreUnavailableError when the same may succeed later. What was inserted then is unknown, and rows are keyed
    by where they came from, so the caller sends them again.
    """

    def __init__(self, spec: ClickHouseSpec, password: str) -> None:
        logging.getLogger("clickhouse_driver.connection").setLevel(logging.ERROR)  # what fails is raised here
        url = urlsplit(spec.url)
        self._options: dict[str, Any] = {
            "host": url.hostname,
            "port": url.port,
            "user": unquote(url.username or "default"),
            "password": password,
            "database": unquote(url.path.lstrip("/")) or "default",
            "secure": url.scheme == "clickhouses",
            "ca_certs": str(spec.ca_file) if spec.ca_file else None,
            "compression": "lz4",
            "connect_timeout": CONNECT_SECONDS,
            "send_receive_timeout": ANSWER_SECONDS,
            "tcp_keepalive": True,
            "client_name": "telltale",
            "client_revision": REVISION,
            "settings": {"strings_as_bytes": True},
        }
        self._engine = spec.engine
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows in one block, which a server keeps or refuses as a whole in each partition."""
        if rows.is_empty():
            return
        names = ", ".join(map(quoted, rows.columns))
        holes = any(column.null_count() for column in rows)  # the driver is slower when it has to look for them
        settings = {**INSERT_SETTINGS, "insert_block_size": len(rows), "input_format_null_as_default": holes}
        with self._client(f"insert into {table}") as client:
            client.execute(f"INSERT INTO {table} ({names}) VALUES", to_columns(rows), columnar=True, settings=settings)

    def query(self, name: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows that ``queries/NAME.sql`` gives."""
        return self._rows(query_text(name), name, parameters)

    def select(self, sql: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows of a statement built in code."""
        return self._rows(sql, sql[:60], parameters)

    def execute(self, sql: str) -> None:
        """Run one statement that gives no rows."""
        with self._client(sql[:60]) as client:
            client.execute(replicated(sql, self._engine.cluster) if self._engine else sql)

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _rows(self, sql: str, what: str, parameters: dict[str, Parameter]) -> pl.DataFrame:
        text = render(sql, parameters)
        try:
            return self._read(text, what)
        except _ConnectionLostError:  # a read changes nothing, so it may be asked again
            return self._read(text, what)

    def _read(self, sql: str, what: str) -> pl.DataFrame:
        with self._client(what) as client:
            values, kinds = client.execute(sql, columnar=True, with_column_types=True)
            return with_texts(from_columns(values, kinds))

    @contextlib.contextmanager
    def _client(self, what: str) -> Iterator[Any]:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            from clickhouse_driver import Client

            client = Client(**self._options)
        try:
            yield client
        except Exception as error:
            raise _store_error(f"ClickHouse at {self._options['host']}: {what}", error) from error
        finally:
            self._idle.put(client)


class _ConnectionLostError(StoreUnavailableError):
    """The connection broke after it had been made."""


def _store_error(what: str, error: Exception) -> StoreError:
    from clickhouse_driver.errors import NetworkError, ServerException, SocketTimeoutError

    if isinstance(error, ServerException):
        reason = failure(what, f"Code: {error.code}. {error.message.partition('. Stack trace:')[0]}")
        return StoreUnavailableError(reason) if error.code in PASSING else StoreError(reason)
    if isinstance(error, NetworkError | SocketTimeoutError):
        return StoreUnavailableError(failure(what, f"the server cannot be reached: {error.message}"))
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(failure(what, f"no answer within {ANSWER_SECONDS} s"))
    if isinstance(error, OSError | EOFError):
        return _ConnectionLostError(failure(what, f"the connection to the server broke: {error}"))
    return StoreError(failure(what, str(error)))
