"""``make bench``: each measurement in a process of its own, several times in turn, the medians as a table.

CPU seconds are user and system time of the whole process, the embedded database's threads included, less what the
same process needs to get ready. Peak memory is the process's own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict

from rich.console import Console
from rich.table import Table

ROUNDS = 5
CASES = (
    "decode-floor",
    "store-alone",
    "ingest",
    "ingest-sampled",
    "ingest-arrow",
    "ingest-arrow-sampled",
    "ingest-arrow-messages",
    "ingest-arrow-mixed",
    "ingest-parquet",
    "ingest-parquet-sampled",
    "ingest-dirty",
    "ingest-mixed",
    "judge-25",
    "judge-200",
    "numpy-floor",
    "compare",
    "start-import",
    "start-help",
)


def main() -> None:
    """Run all cases in turn and print the table."""
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    for round_number in range(ROUNDS):
        for case in CASES:
            print(f"round {round_number + 1} of {ROUNDS}: {case}        ", end="\r", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.cases", case]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this file's own
            results[case].append(json.loads(done.stdout.splitlines()[-1]))
    print(" " * 60, end="\r", file=sys.stderr)
    table = Table("what", "median", "lowest", "highest", "unit", "peak memory")
    for case in CASES:
        rows = results[case]
        values = sorted(r["value"] for r in rows)
        memory = f"{max(r['peak_mb'] for r in rows):,.0f} MB"
        shown = [f"{v:,.4g}" if v < 1000 else f"{v:,.0f}" for v in (statistics.median(values), values[0], values[-1])]
        table.add_row(str(rows[0]["what"]), *shown, str(rows[0]["unit"]), memory)
    for name, above, below in (
        ("ingest / decode floor", "ingest", "decode-floor"),
        ("ingest / ClickHouse's own (wanted: 0.7)", "ingest", "store-alone"),
        ("ingest, sampling 0.01 / ClickHouse's own (wanted: 1.0)", "ingest-sampled", "store-alone"),
        ("ingest, dirty / clean (wanted: 0.6)", "ingest-dirty", "ingest"),
        ("ingest, 200 models / one (wanted: 0.4)", "ingest-mixed", "ingest"),
        ("Arrow streams / lines (wanted: 1.3)", "ingest-arrow", "ingest"),
        ("Arrow streams / lines, sampling 0.01 (wanted: 3)", "ingest-arrow-sampled", "ingest-sampled"),
        ("Arrow messages of 1,000 rows / lines (wanted: 1.3)", "ingest-arrow-messages", "ingest"),
        ("Arrow streams / lines, 200 models", "ingest-arrow-mixed", "ingest-mixed"),
        ("Parquet files / lines (wanted: 1.3)", "ingest-parquet", "ingest"),
        ("Parquet files / lines, sampling 0.01 (wanted: 3)", "ingest-parquet-sampled", "ingest-sampled"),
        ("compare / NumPy binning of both tables", "compare", "numpy-floor"),
    ):
        ratios = [a["value"] / b["value"] for a, b in zip(results[above], results[below], strict=True)]
        shown = [f"{r:.2f}" for r in (statistics.median(ratios), min(ratios), max(ratios))]
        table.add_row(name, *shown, "ratio", "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
