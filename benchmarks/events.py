"""The events that are measured, made once by a process of their own and read from files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl

from benchmarks.ways import WAYS

if TYPE_CHECKING:
    from monitor.service import Service

EVENTS = 200_000
BATCH = 20_000
START = datetime(2026, 1, 1, tzinfo=UTC)


def bodies(count: int, numbers: int = 20, levels: int = 5, models: int = 1) -> Iterator[bytes]:
    """Batches of prediction events, about 510 bytes each with 20 numeric and 5 categorical features."""
    rng = np.random.default_rng(1)
    for start in range(0, count, BATCH):
        values = rng.normal(size=(BATCH, numbers)).round(4).tolist()
        words = rng.integers(0, 8, size=(BATCH, levels)).tolist()
        lines = []
        for i in range(BATCH):
            features = {f"n{j}": v for j, v in enumerate(values[i])} | {
                f"c{j}": f"lv-{w}" for j, w in enumerate(words[i])
            }
            number = start + i
            lines.append(
                orjson.dumps(
                    {
                        "type": "prediction",
                        "model": f"m{number % models or ''}",
                        "version": str(1 + number // models % 2),
                        "server": f"pod-{number // models % 10}",
                        "prediction_id": f"id-{number:08}",
                        "timestamp": START.timestamp() + number * 0.01,
                        "features": features,
                        "prediction": {"score": 0.25, "label": "no"},
                        "latency_ms": 12.5,
                    }
                )
            )
        yield b"\n".join(lines)


def dirty(body: bytes) -> bytes:
    """The same with 1 % of the lines holding a value of a wrong kind, 0.1 % garbage and 5 % an undeclared key."""
    rng = np.random.default_rng(2)
    lines = body.split(b"\n")
    wrong = (b'"high"', b"true", b"[1]", b'{"a":1}')
    for number, draw in enumerate(rng.random(len(lines)).tolist()):
        if draw < 0.01:
            before, after = lines[number].split(b'"n%d":' % (number % 20), 1)
            value = wrong[number // 20 % len(wrong)]
            lines[number] = before + b'"n%d":' % (number % 20) + value + after[after.index(b",") :]
        elif draw < 0.011:
            lines[number] = lines[number][: number % 400] + b"\xff{]"
        elif draw < 0.061:
            lines[number] = lines[number].replace(b'"features":{', b'"features":{"new_%d":1.5,' % (number % 3))
    return b"\n".join(lines)


def sent(way: str, models: int = 1, *, soiled: bool = False) -> Iterator[Any]:
    """What is sent, batch by batch; the first one is not measured.

    Another process makes it, so that the memory for that is not counted.
    """
    folder = Path(os.environ.get("BENCH_EVENTS") or tempfile.mkdtemp())
    here = folder / f"{way} {models} {soiled}"
    if not here.exists():
        command = [sys.executable, "-m", "benchmarks.events", way, str(models), str(int(soiled)), str(here)]
        subprocess.run(command, check=True)  # noqa: S603 - this file's own
    for file in sorted(here.glob("*.batch")):
        yield pickle.loads(file.read_bytes())  # noqa: S301 - written below


def service_of(folder: Path, sampling: float = 1.0, models: int = 1, **more: Any) -> Service:
    """A service that knows the models and has references of them."""
    from monitor.config import Config
    from monitor.service import Service

    kinds = {f"n{j}": "numeric" for j in range(20)} | {f"c{j}": "categorical" for j in range(5)}
    spec = {"sampling": {"features": sampling}, "windows": ["1h"], "features": kinds}
    names = [f"m{n or ''}" for n in range(models)]
    config = Config.model_validate({"store": {"path": folder}, "models": dict.fromkeys(names, spec), **more})
    service = Service(config)
    rng = np.random.default_rng(3)
    numbers = {f"n{j}": rng.normal(size=2_000).round(4) for j in range(20)}
    table = pl.DataFrame({**numbers, **{f"c{j}": [f"lv-{n % 8}" for n in range(2_000)] for j in range(5)}})
    for name in names:
        service.register_reference(name, table, "first")
    return service


def _write(way: str, models: int, soiled: int, folder: Path) -> None:
    making = folder.with_suffix(".making")
    making.mkdir(parents=True)
    for number, body in enumerate(bodies(EVENTS + BATCH, models=models)):
        prepared = WAYS[way].prepare(dirty(body) if soiled else body, folder.parent / f"{folder.name} {number}")
        (making / f"{number:03}.batch").write_bytes(pickle.dumps(prepared))
    making.rename(folder)


if __name__ == "__main__":
    _write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
