"""Tables of what was answered, for jobs that score many rows at once. Needs pyarrow: ``telltale-client[arrow]``.

Unlike ``Logger`` this waits, and raises when Telltale does not take the table: a job can be run again.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from telltale_client.batches import Batch, Receipt, RefusedError, Transport, UnavailableError
from telltale_client.logger import http_transport

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
ROWS = 20_000
LONGEST_PAUSE_SECONDS = 30.0


def log_table(
    features: Any,
    prediction: Any,
    *,
    model: str,
    version: str,
    prediction_id: Any,
    score: Any = None,
    timestamp: Any = None,
    server: str | None = None,
    environment: str | None = None,
    transport: Transport | None = None,
    timeout: float = 60.0,
) -> Receipt:
    """Send a table of predictions, and return when it is durable: how many rows were taken in, and how many refused.

    features
        A column for each feature: a table of pyarrow, pandas or Polars.
    prediction, score
        What was answered for each row and, for a classifier, with which score.
    prediction_id
        An id for each row, which labels will name.
    timestamp
        When: a datetime or epoch seconds, for all rows or for each; now, if left out. A job that is run again with the
        same times and ids changes nothing.
    server, environment, transport
        As for ``Logger``.
    timeout
        Seconds for which a part of the table is sent again when nobody takes it. A wrong key or address raises at once.

    Raises UnavailableError or RefusedError for what was not taken in; what came before it is. Raises ValueError where
    neither a transport nor ``TELLTALE_URL`` is given, or columns differ in length.
    """
    to = transport or http_transport()
    if to is None:
        raise ValueError("neither transport nor TELLTALE_URL says where Telltale is")
    given = _table(features)
    said = {
        "type": "prediction",
        "model": model,
        "version": version,
        "server": server or os.environ.get("POD_NAME") or os.environ.get("HOSTNAME") or socket.gethostname(),
        "environment": environment or os.environ.get("TELLTALE_ENVIRONMENT") or "production",
    }
    columns: dict[str, Any] = {name: pa.repeat(text, given.num_rows) for name, text in said.items()}
    columns["timestamp"] = _times(timestamp, given.num_rows)
    columns["prediction_id"] = _column(prediction_id)
    columns |= (
        {"prediction": _column(prediction)}
        if score is None
        else {
            "prediction.label": _column(prediction),
            "prediction.score": _column(score),
        }
    )
    columns |= {f"features.{name}": column for name, column in zip(given.column_names, given.columns, strict=True)}
    table = pa.table(columns)
    try:
        return _sum([_sent(to, table.slice(first, ROWS), timeout) for first in range(0, table.num_rows, ROWS)])
    finally:
        to.close()


def _sum(receipts: list[Receipt]) -> Receipt:
    reason = next((receipt.reason for receipt in receipts if receipt.reason), "")
    return Receipt(sum(r.accepted for r in receipts), sum(r.rejected for r in receipts), reason)


def _sent(to: Transport, table: pa.Table, timeout: float) -> Receipt:
    out = pa.BufferOutputStream()
    with ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    body = out.getvalue().to_pybytes()
    batch = Batch((body,), hashlib.sha256(body).hexdigest()[:32], content_type=CONTENT_TYPE)
    half = table.num_rows // 2
    try:
        return _in_time(to, batch, timeout)
    except RefusedError as error:
        if not error.too_large or not half:
            raise
    return _sum([_sent(to, table.slice(0, half), timeout), _sent(to, table.slice(half), timeout)])


def _in_time(to: Transport, batch: Batch, timeout: float) -> Receipt:
    until, pause = time.monotonic() + timeout, 0.5
    while True:
        try:
            return to.send(batch)
        except UnavailableError as error:
            wait = max(pause, error.after)
            if error.for_people or time.monotonic() + wait > until:
                raise
        time.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _table(features: Any) -> pa.Table:
    if isinstance(features, pa.Table):
        return features
    if hasattr(features, "to_arrow"):
        return features.to_arrow()
    return pa.Table.from_pandas(features, preserve_index=False)


def _column(values: Any) -> Any:
    return values.to_arrow() if hasattr(values, "to_arrow") else pa.array(values)


def _times(timestamp: Any, rows: int) -> Any:
    if timestamp is None or isinstance(timestamp, (int, float, datetime)):
        at = time.time() if timestamp is None else timestamp
        return pa.repeat(at.timestamp() if isinstance(at, datetime) else float(at), rows)
    return _column(timestamp)
