"""The measurements. Each prints one JSON object: what, value, unit, peak_mb."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from benchmarks.ways import ARROW, LINES, MESSAGES, PARQUET, Way
from monitor.store.embedded import INSERT_SETTINGS, EmbeddedStore

EVENTS = 200_000
BATCH = 20_000
START = datetime(2026, 1, 1, tzinfo=UTC)
HELP = "import sys; sys.argv = ['telltale', '--help']; from monitor.cli import main; main()"
MAP_TABLE = """
CREATE TABLE events
(
    type LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    prediction_id String,
    timestamp Float64,
    features Map(LowCardinality(String), String),
    prediction Map(LowCardinality(String), String),
    latency_ms Float64
)
ENGINE = MergeTree
ORDER BY (model, timestamp)
"""
COMPARE_ROWS, COMPARE_COLUMNS = 1_000_000, 50


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


def ingest(sampling: float, models: int = 1, *, soiled: bool = False, way: Way = LINES) -> tuple[str, float, str]:
    """Bytes to store, as lines or another way."""
    from monitor.config import Config
    from monitor.service import Service

    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        kinds = {f"n{j}": "numeric" for j in range(20)} | {f"c{j}": "categorical" for j in range(5)}
        spec = {"sampling": {"features": sampling}, "windows": ["1h"], "features": kinds}
        names = [f"m{n or ''}" for n in range(models)]
        config = Config.model_validate({"store": {"path": Path(folder)}, "models": dict.fromkeys(names, spec)})
        with Service(config) as service:
            table = pl.DataFrame([orjson.loads(x)["features"] for x in next(bodies(BATCH)).split(b"\n")[:2_000]])
            for name in names:
                service.register_reference(name, table, "first")
            for number, body in enumerate(bodies(EVENTS + BATCH, models=models)):
                sent = dirty(body) if soiled else body
                given = way.prepare(sent, Path(folder))
                spent = cpu(lambda given=given, number=number: way.take(service, given, number))  # type: ignore[misc]  # a default keeps the loop's value
                seconds += spent if number else 0.0  # the first batch makes the first parts
    kind = ", dirty" if soiled else f", {models} models mixed" if models > 1 else ""
    return f"ingest, {way.name}, feature sampling {sampling:g}{kind}", EVENTS / seconds, "events per CPU s"


def decode_floor() -> tuple[str, float, str]:
    """One pass of the JSON decoder over the same bytes."""
    seconds = 0.0
    for body in bodies(EVENTS):
        lines = body.split(b"\n")
        seconds += cpu(lambda lines=lines: [orjson.loads(x) for x in lines])  # type: ignore[misc]  # a default keeps the loop's value
    return "decode floor, orjson over the same bytes", EVENTS / seconds, "events per CPU s"


def store_alone() -> tuple[str, float, str]:
    """The engine's own reading of the same bytes into the same rows, features as a map; no checks, no profiles."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder))
        store.execute(MAP_TABLE)
        for number, body in enumerate(bodies(EVENTS + BATCH)):
            spent = cpu(lambda body=body: _insert_lines(store, body))  # type: ignore[misc]  # a default keeps the loop's value
            seconds += spent if number else 0.0
        store.close()
    return "ClickHouse's own JSONEachRow into rows with a Map", EVENTS / seconds, "events per CPU s"


def _insert_lines(store: EmbeddedStore, body: bytes) -> None:
    descriptor = os.memfd_create("lines")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(body)
    store.execute(
        f"INSERT INTO events FROM INFILE '/proc/self/fd/{descriptor}' COMPRESSION 'none' "
        f"SETTINGS {INSERT_SETTINGS} FORMAT JSONEachRow"
    )
    os.close(descriptor)


def judge(features: int) -> tuple[str, float, str]:
    """One window of 10 servers and 2 versions, from stored profiles to stored findings."""
    from detectors.finding import Window
    from monitor.config import Config, ReferenceWindow
    from monitor.service import Service

    levels = features // 5
    with tempfile.TemporaryDirectory() as folder:
        spec = {"windows": ["1h"], "routing": "random", "minimum_rows": 200}
        config = Config.model_validate({"store": {"path": Path(folder)}, "models": {"m": spec}})
        with Service(config) as service:
            service.take(next(bodies(BATCH, features - levels, levels)), "http")
            model = service.registry.get("production", "m")
            window = Window("production", "m", START, START + timedelta(hours=1))
            span = ReferenceWindow(start=window.start, end=window.end)
            model = service.references.from_window(model, span, START)
            service.judge.traffic(model, window, START)
            started = time.perf_counter()
            for _ in range(5):
                service.judge.traffic(model, window, START)
            seconds = (time.perf_counter() - started) / 5
    return f"judge one window, {features} features, 10 servers, 2 versions", seconds * 1000, "ms"


def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two tables of normal numbers."""
    rng = np.random.default_rng(2)
    names = [f"f{i}" for i in range(COMPARE_COLUMNS)]
    first, second = (pl.DataFrame({n: rng.normal(size=COMPARE_ROWS) for n in names}) for _ in range(2))
    return first, second


def compare() -> tuple[str, float, str]:
    """``telltale.compare`` of two tables in memory."""
    import telltale

    reference, current = tables()
    seconds = cpu(lambda: telltale.compare(reference, current))
    return "telltale.compare, 1M x 50 against 1M x 50", seconds, "CPU s"


def numpy_floor() -> tuple[str, float, str]:
    """Plain NumPy quantile binning of both tables."""
    reference, current = tables()

    def bin_all() -> None:
        for name in reference.columns:
            a, b = reference[name].to_numpy(), current[name].to_numpy()
            edges = np.quantile(a, np.linspace(0, 1, 33)[1:-1])
            for values in (a, b):
                np.bincount(np.searchsorted(edges, values), minlength=32)

    return "NumPy quantile binning of both tables", cpu(bin_all), "CPU s"


def start_up(code: str, what: str) -> tuple[str, float, str]:
    """CPU seconds of a fresh interpreter, without those of an empty one."""

    def spent(argument: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", argument], check=True, capture_output=True)  # noqa: S603 - this file's own
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    spent(code)
    return what, spent(code) - spent("pass"), "CPU s"


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


CASES: dict[str, Callable[[], tuple[str, float, str]]] = {
    "decode-floor": decode_floor,
    "ingest": lambda: ingest(1.0),
    "ingest-sampled": lambda: ingest(0.01),
    "ingest-arrow": lambda: ingest(1.0, way=ARROW),
    "ingest-arrow-sampled": lambda: ingest(0.01, way=ARROW),
    "ingest-arrow-messages": lambda: ingest(1.0, way=MESSAGES),
    "ingest-arrow-mixed": lambda: ingest(1.0, models=200, way=ARROW),
    "ingest-parquet": lambda: ingest(1.0, way=PARQUET),
    "ingest-parquet-sampled": lambda: ingest(0.01, way=PARQUET),
    "ingest-dirty": lambda: ingest(1.0, soiled=True),
    "ingest-mixed": lambda: ingest(1.0, models=200),
    "store-alone": store_alone,
    "judge-25": lambda: judge(25),
    "judge-200": lambda: judge(200),
    "numpy-floor": numpy_floor,
    "compare": compare,
    "start-import": lambda: start_up("import telltale", "import telltale"),
    "start-help": lambda: start_up(HELP, "telltale --help"),
}

if __name__ == "__main__":
    what, value, unit = CASES[sys.argv[1]]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"what": what, "value": value, "unit": unit, "peak_mb": peak}))
