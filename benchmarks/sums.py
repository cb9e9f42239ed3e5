"""Sums of hours: their size and the time to read them, as lists of the cells that are not zero and as dense arrays.

``python -m benchmarks.sums`` prints a table. Times are medians of nine reads; CPU is that of the whole process.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.events import bodies
from monitor.config import Config
from monitor.folding import fold, mark
from monitor.registry import Model
from monitor.service import Service
from monitor.store import Store
from monitor.windows import read_traffic

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVENTS_AN_HOUR = 100_000
READS = 9
MODELS = 200


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        features = {f"n{j}": "numeric" for j in range(20)} | {f"c{j}": "categorical" for j in range(5)}
        models = {"m": {"features": features, "windows": ["1h"]}}
        config = Config.model_validate({"store": {"path": Path(folder)}, "models": models})
        with Service(config) as service:
            _measure(service)


def _measure(service: Service) -> None:
    body = next(bodies(20_000))
    service.register_reference("m", _table(body), "train")
    service.take(body, "http")
    model = service.registry.get("production", "m")
    shares = read_traffic(service.store, model, START, START + HOUR).counts()
    layout = model.layout
    assert layout is not None  # noqa: S101 - the reference made it
    _say(f"\n{layout.size} cells; {EVENTS_AN_HOUR:,} events an hour on each server\n")
    _say("| what | rows | cells that are not zero | encoding | bytes on disk | read, median | CPU |")
    _say("| --- | --- | --- | --- | --- | --- | --- |")
    for day, servers in enumerate((1, 10), start=1):
        start = START + day * timedelta(days=1)
        _write_hours(service.store, model, shares, start, servers)
        fold(service.store, "production", "m", start, start + 24 * HOUR, start)
        _compare(service.store, f"a day, {servers} server{'s' * (servers > 1)}", "profile_hours", start, layout.size)
        for hours in (24, 1):
            read = partial(read_traffic, service.store, model, start, start + hours * HOUR)
            _say(_read(f"`read_traffic`, {hours} h, {servers}", read))
    service.store.execute("TRUNCATE TABLE profile_batches")
    lines = next(bodies(20_000)).split(b"\n")
    for n in range(MODELS):  # batches of one model in place of models of one batch
        service.take(b"\n".join(lines[n::MODELS]), "http")
    _compare(service.store, f"{MODELS} models in one batch", "profile_batches", START, layout.size)


def _write_hours(store: Store, model: Model, shares: np.ndarray, start: datetime, servers: int) -> None:
    """A batch an hour and server, whose counts are drawn from what the real events had."""
    rng = np.random.default_rng(1)
    layout = model.layout
    assert layout is not None  # noqa: S101 - the reference made it
    rows = []
    for hour in range(24):
        for server in range(servers):
            drawn = np.zeros(layout.size, np.int64)
            for span in layout.spans.values():
                if (total := shares[span].sum()) > 0:
                    drawn[span] = rng.multinomial(EVENTS_AN_HOUR, (shares[span] + 1e-5) / (shares[span] + 1e-5).sum())
                    drawn[span] *= total > 0
            cells = np.flatnonzero(drawn)
            rows.append((start + hour * HOUR, f"pod-{server}", cells.tolist(), drawn[cells].tolist()))
    table = pl.DataFrame(
        {
            "minute": [r[0] for r in rows],
            "server": [r[1] for r in rows],
            "cells": pl.Series([r[2] for r in rows], dtype=pl.List(pl.UInt32)),
            "counts": pl.Series([r[3] for r in rows], dtype=pl.List(pl.UInt32)),
        }
    ).with_columns(
        environment=pl.lit("production"),
        model=pl.lit("m"),
        version=pl.lit("1"),
        role=pl.lit("live"),
        segment=pl.lit(""),
        weight=pl.lit(1.0),
        layout_id=pl.lit(layout.id),
        n=pl.lit(EVENTS_AN_HOUR, pl.UInt64),
        failed=pl.lit(0, pl.UInt64),
        undeclared=pl.lit(0, pl.UInt64),
        source=pl.lit("s"),
        batch=pl.lit("b"),
    )
    store.insert("profile_batches", table)
    mark(store, table)


def _compare(store: Store, what: str, table: str, start: datetime, size: int) -> None:
    """The same rows in two tables, each read as a window is. Of batches, each stands for a model."""
    of_batches = table == "profile_batches"
    where = "1" if of_batches else f"toDate(hour) = '{start:%Y-%m-%d}'"
    name = "if(batch = (SELECT min(batch) FROM profile_batches), model, batch) AS model" if of_batches else "model"
    key = f"environment, {name}, {'minute' if of_batches else 'hour'} AS at, version, server, role, segment, weight, n"
    number = "UInt32" if table == "profile_batches" else "UInt64"
    dense = f"arrayMap(i -> counts[indexOf(cells, i)], range(toUInt32({size}))) AS dense"
    for name, columns in (("sparse", "cells, counts"), ("dense", dense)):
        store.execute("DROP TABLE IF EXISTS tried")
        made = f"SELECT {key}, {columns} FROM {table} FINAL WHERE {where}"  # noqa: S608 - our own words
        store.execute(f"CREATE TABLE tried ENGINE = MergeTree ORDER BY (environment, model, at) AS {made}")
        parts = (
            "SELECT sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts WHERE active AND table = 'tried'"
        )
        rows, size_on_disk = store.select(parts).row(0)
        filled = store.select(f"SELECT sum(length(cells)) AS n FROM {table} FINAL WHERE {where}")["n"][0]  # noqa: S608 - the same
        added = f"sumMap(cells, CAST(counts, 'Array({number})'))" if name == "sparse" else "sumForEach(dense)"
        sql = f"SELECT server, sum(n), {added} AS filled FROM tried WHERE model = 'm' GROUP BY server"  # noqa: S608 - the same
        told = f"{what} | {rows:,} | {filled / rows / size:.0%} | {name} | {size_on_disk:,}"
        _say(_read(told, partial(store.select, sql), bare=True))


def _read(what: str, read: Callable[[], object], *, bare: bool = False) -> str:
    took, cpu = [], []
    for _ in range(READS):
        began, spent = time.perf_counter(), time.process_time()
        read()
        took.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    columns = "" if bare else " | | | in use |"
    return f"| {what}{columns} | {1000 * statistics.median(took):.1f} ms | {1000 * statistics.median(cpu):.1f} ms |"


def _table(body: bytes) -> pl.DataFrame:
    events = pl.read_ndjson(body)
    answers = events["prediction"].struct.unnest()
    return events["features"].struct.unnest().with_columns(score=answers["score"], prediction=answers["label"])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
