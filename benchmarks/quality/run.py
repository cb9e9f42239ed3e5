"""Runs the measures that are named, or all, and prints the table: ``python -m benchmarks.quality.run [NAME ...]``.

A measure is a module of this folder with a function ``lines()``. Adding one is adding its name here.
"""

from __future__ import annotations

import importlib
import sys
import time

from rich.console import Console
from rich.table import Table

MEASURES: tuple[str, ...] = (
    "iid",
    "adult",
    "power",
    "speed",
    "stream",
    "fleet",
    "real",
    "places",
    "joint",
    "compare",
    "peers",
)
SHOWN = {True: "yes", False: "NO", None: ""}


def main() -> None:
    """Print one table of all lines; exit 1 where one that is wanted was not reached."""
    names = sys.argv[1:] or list(MEASURES)
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        sys.exit(f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    table = Table("measure", "wanted", "measured", "reached")
    missed = False
    for name in names:
        started = time.process_time()
        for line in importlib.import_module(f"benchmarks.quality.{name}").lines():
            table.add_row(line.measure, line.wanted, line.result, SHOWN[line.reached])
            missed |= line.reached is False
        print(f"{name}: {time.process_time() - started:.0f} CPU s", file=sys.stderr)
    Console(width=150).print(table)
    sys.exit(missed)


if __name__ == "__main__":
    main()
