"""What comparing two tables costs: CPU seconds of all threads, in the same run as plain NumPy binning of both."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import telltale
from benchmarks.cases import COMPARE_COLUMNS, COMPARE_ROWS, compare, cpu, numpy_floor, tables
from benchmarks.quality.peer_environments import NoPeerError, ask, make
from benchmarks.quality.table import Line
from monitor.reference import read_table

ROUNDS = 3
FEWER_ROWS = 100_000
WANTED = 1.0
PEERS = {
    "evidently": (("evidently, Report([DataDriftPreset()])", FEWER_ROWS),),
    "nannyml": tuple(("NannyML, univariate drift with defaults", rows) for rows in (FEWER_ROWS, COMPARE_ROWS)),
}


def lines() -> Iterator[Line]:
    """The ratio that is wanted, and what reading and other tools take."""
    pairs = [(compare()[1], numpy_floor()[1]) for _ in range(ROUNDS)]
    ratios = sorted(ours / floor for ours, floor in pairs)
    ours, floor = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    yield Line(
        f"telltale.compare over NumPy quantile binning of both tables, {_size(COMPARE_ROWS)}",
        f"at most {WANTED}",
        f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}): {ours:.2f} of {floor:.2f} CPU s",
        ratio <= WANTED,
    )
    reference, current = tables()
    few, others = (table.head(FEWER_ROWS) for table in (reference, current))
    yield _printed("telltale.compare", FEWER_ROWS, cpu(lambda: telltale.compare(few, others)))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.parquet" for name in ("reference", "current")]
        for file, table in zip(files, (reference, current), strict=True):
            table.write_parquet(file)
        yield _printed("reading both tables from Parquet", COMPARE_ROWS, cpu(lambda: [read_table(f) for f in files]))
    for peer, runs in PEERS.items():
        yield from _peer(peer, runs)


def _peer(peer: str, runs: tuple[tuple[str, int], ...]) -> Iterator[Line]:
    for what, rows in runs:
        try:
            make(peer)
            yield _printed(what, rows, ask(peer, "preset", str(rows), str(COMPARE_COLUMNS))["cpu_seconds"])
        except NoPeerError as error:
            yield Line(f"{what}, {_size(rows)}", "printed", f"skipped: {error}")


def _printed(what: str, rows: int, seconds: float) -> Line:
    return Line(f"{what}, {_size(rows)}", "printed", f"{seconds:.2f} CPU s")


def _size(rows: int) -> str:
    return f"{rows:,} x {COMPARE_COLUMNS}"
