"""Plays the demo with many seeds and counts how often all of it is right: ``python -m benchmarks.seeds [SEEDS]``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from monitor.demo.checking import mistakes
from monitor.demo.world import Plan

AT_ONCE = 2


def play(seed: int) -> list[str]:
    """What was wrong with one seed."""
    command = [sys.executable, "-m", "monitor.cli", "demo", "--exit", "--json", "--port", "0", "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - this project's own
    if done.returncode != 0:
        return [f"exit code {done.returncode}: {done.stderr[-300:]}"]
    return mistakes(Plan.of(seed), [json.loads(line) for line in done.stdout.splitlines()])


def main() -> None:
    """Play them all."""
    seeds = range(1, 1 + int(sys.argv[1] if len(sys.argv) > 1 else 20))
    right = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for seed, wrong in zip(seeds, threads.map(play, seeds), strict=True):
            print(f"seed {seed}: {'right' if not wrong else '; '.join(wrong)}")
            right += not wrong
    print(f"{right} of {len(seeds)} right")


if __name__ == "__main__":
    main()
