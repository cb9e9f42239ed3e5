"""The embedded engine: chdb, which is ClickHouse inside this process. One process owns a data folder."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import queue
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from monitor.store import Parameter, StoreBusyError, StoreError, failure, query_text
from monitor.store.literals import quoted, render
from monitor.store.texts import with_texts

INSERT_SETTINGS = (
    "async_insert = 0, max_insert_threads = 1, max_partitions_per_insert_block = 0, "
    "optimize_on_insert = 0, max_threads = 1, max_parsing_threads = 1, input_format_parallel_parsing = 0"
)
"""Duplicates are found when rows are read; to look for them within one insert takes as long as writing it."""
SETTINGS = (
    "SET output_format_arrow_string_as_string = 0, "
    "compile_expressions = 0, compile_aggregate_expressions = 0, compile_sort_description = 0"
)
"""Most questions are about few rows, for which compiling their parts to machine code does not pay."""
UNCHANGED_PROGRAM = re.compile(r"^(\w+)-(\w+) r-.p .*/_chdb\S*\n(?:(?!\w+-).*\n)*?Anonymous: +0 kB$", re.MULTILINE)
"""Parts of memory (first address and end) that hold what is in the engine's file, and nothing that was written."""


def give_program_back() -> None:
    """Take the pages of the engine's program out of this process's memory; those that are needed again come back.

    To load and start it, far more of them are read than are used ever after. Does nothing on systems without /proc.
    """
    parts = Path("/proc/self/smaps")
    if not parts.exists():
        return
    system = ctypes.CDLL(None)
    for first, end in UNCHANGED_PROGRAM.findall(parts.read_text()):
        start = int(first, 16)
        system.madvise(ctypes.c_void_p(start), ctypes.c_size_t(int(end, 16) - start), mmap.MADV_DONTNEED)


class EmbeddedStore:
    """A store in a folder on this machine.

    Raises StoreBusyError at once when another process has the folder, instead of the engine's own unclear error.
    Each call has a handle to itself, as two calls on one would wait for each other; handles are used again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise StoreBusyError(f"{folder} is in use by another process") from None
        self._path = str(folder / "clickhouse")
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        with self._handle():
            give_program_back()

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Write the rows through an anonymous file: unlike the engine's streaming insert, that reports every error."""
        if rows.is_empty():
            return
        descriptor = os.memfd_create("rows")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                rows.write_ipc_stream(file, compat_level=pl.CompatLevel.oldest(), compression="uncompressed")
            columns = ", ".join(map(quoted, rows.columns))
            self._run(
                f"INSERT INTO {table} ({columns}) FROM INFILE '/proc/self/fd/{descriptor}' COMPRESSION 'none' "
                f"SETTINGS {INSERT_SETTINGS} FORMAT ArrowStream",
                f"insert into {table}",
            )
        finally:
            os.close(descriptor)

    def query(self, name: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows that ``queries/NAME.sql`` gives."""
        return self._rows(query_text(name), name, parameters)

    def select(self, sql: str, **parameters: Parameter) -> pl.DataFrame:
        """The rows of a statement built in code."""
        return self._rows(sql, sql[:60], parameters)

    def execute(self, sql: str) -> None:
        """Run one statement that gives no rows."""
        self._run(sql, sql[:60])

    def close(self) -> None:
        """Release the engine and the folder."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
        with contextlib.suppress(ValueError):
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._lock_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def _handle(self) -> Iterator[Any]:
        try:
            handle = self._idle.get_nowait()
        except queue.Empty:
            import chdb

            handle = chdb.connect(self._path)  # type: ignore[no-untyped-call]  # the library has no types
            handle.query(SETTINGS)
        try:
            yield handle
        except BaseException:
            handle.close()  # what a failed query gave before it failed would stand before the next one's rows
            raise
        self._idle.put(handle)

    def _rows(self, sql: str, what: str, parameters: dict[str, Parameter]) -> pl.DataFrame:
        result = self._run(render(sql, parameters), what)
        return with_texts(pl.read_ipc_stream(result.bytes()))

    def _run(self, sql: str, what: str) -> Any:
        try:
            with self._handle() as handle:
                return handle.query(sql, "ArrowStream")
        except Exception as error:
            raise StoreError(failure(what, str(error))) from error
