"""Files of tables: Parquet, Arrow files (Feather) and Arrow streams, taken in piece by piece."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc, parquet

from monitor.arrow_stream import row_width
from monitor.table_events import is_field
from monitor.tables import FIRST_BYTES, BadTableError, LargeTableError, TableLines

PIECE_ROWS = 20_000
PIECE_BYTES = 16 * 1024 * 1024
PARQUET, ARROW_FILE = b"PAR1", b"ARROW1"


def is_table_file(path: Path) -> bool:
    """Whether a file is a table, by how it begins."""
    with path.open("rb") as file:
        return file.read(6).startswith((PARQUET, ARROW_FILE, FIRST_BYTES))


def import_table(service: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Take a table of events in, and give the bytes of the file that are done and the answer for each piece.

    A piece is known by its place and by the first rows of the table and of itself. So importing the same file again,
    after an interruption, changes nothing that is already there. Raises BadTableError.
    """
    size = path.stat().st_size
    rows, first_line = 0, b""
    for share, batch in _batches(path):
        for lines in _pieces(batch):
            line = lines.events.lines(np.zeros(1, np.int64))[0]
            first_line = first_line or line
            named = b"\x1f".join((b"%d" % rows, first_line, line))
            answer = dict(service.import_chunk(lines.raw, hashlib.sha256(named).hexdigest()[:32]))
            for rejected in answer["rejected"]:
                rejected["line"] += rows
            rows += len(lines)
            yield int(share * size), answer


def _batches(path: Path) -> Iterator[tuple[float, pa.RecordBatch]]:
    """The columns of the contract in parts of the file as it was written, and how much of it is done with each."""
    try:
        with path.open("rb") as file, contextlib.ExitStack() as opened:
            begin = file.read(6)
            file.seek(0)
            if begin.startswith(PARQUET):
                table = opened.enter_context(parquet.ParquetFile(file))
                columns = [name for name in table.schema_arrow.names if is_field(name)]
                for group in range(table.num_row_groups):
                    for batch in table.iter_batches(PIECE_ROWS, row_groups=[group], columns=columns):
                        yield (group + 1) / table.num_row_groups, batch
            elif begin.startswith(ARROW_FILE):
                whole = opened.enter_context(ipc.open_file(file))
                for number in range(whole.num_record_batches):
                    yield (number + 1) / whole.num_record_batches, _of_contract(whole.get_batch(number))
            else:
                size = path.stat().st_size
                for batch in opened.enter_context(ipc.open_stream(file)):
                    yield file.tell() / size, _of_contract(batch)
    except (pa.ArrowException, OSError) as error:
        raise BadTableError(f"{path}: {str(error)[:200]}") from None


def _of_contract(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)
    return batch.select([n for n, name in enumerate(batch.schema.names) if is_field(name)])


def _pieces(batch: pa.RecordBatch) -> Iterator[TableLines]:
    """A batch as streams that can be sent, in order. How it is cut depends on what it holds alone."""
    plain = pa.RecordBatch.from_arrays([_decoded(c) for c in batch.columns], names=batch.schema.names)
    rows = max(1, min(PIECE_ROWS, PIECE_BYTES // (row_width(plain.schema) + 1)))
    for start in range(0, plain.num_rows, rows):
        yield from _cut(plain.slice(start, rows))


def _cut(batch: pa.RecordBatch) -> Iterator[TableLines]:
    out = pa.BufferOutputStream()
    with ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    lines = TableLines(out.getvalue().to_pybytes())
    half = batch.num_rows // 2
    try:
        lines.check()
    except LargeTableError:
        if not half:
            raise
        yield from _cut(batch.slice(0, half))
        yield from _cut(batch.slice(half))
    else:
        yield lines


def _decoded(column: pa.Array) -> pa.Array:
    """A column without a dictionary or views, of which each piece would else get all."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _decoded(column.dictionary).take(column.indices)
    return column.cast(pa.large_string()) if pa.types.is_string_view(kind) else column
