"""The measurements. Each prints one JSON object: what, value, unit, peak_mb."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from benchmarks.events import BATCH, EVENTS, START, bodies, sent, service_of
from benchmarks.over_kafka import over_kafka, poll_alone
from benchmarks.ways import ARROW, LINES, MESSAGES, PARQUET, Way
from monitor.store.embedded import INSERT_SETTINGS, EmbeddedStore

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


def ingest(sampling: float, models: int = 1, *, soiled: bool = False, way: Way = LINES) -> tuple[str, float, str]:
    """Bytes to store, as lines or another way."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder, service_of(Path(folder), sampling, models) as service:
        for number, given in enumerate(sent(way.name, models, soiled=soiled)):
            spent = cpu(lambda given=given, number=number: way.take(service, given, number))  # type: ignore[misc]  # a default keeps the loop's value
            seconds += spent if number else 0.0  # the first batch makes the first parts
    kind = ", dirty" if soiled else f", {models} models mixed" if models > 1 else ""
    return f"ingest, {way.name}, feature sampling {sampling:g}{kind}", EVENTS / seconds, "events per CPU s"


def decode_floor() -> tuple[str, float, str]:
    """One pass of the JSON decoder over the same bytes."""
    seconds = 0.0
    for body in sent(LINES.name):
        lines = body.split(b"\n")
        seconds += cpu(lambda lines=lines: [orjson.loads(x) for x in lines])  # type: ignore[misc]  # a default keeps the loop's value
    return "decode floor, orjson over the same bytes", (EVENTS + BATCH) / seconds, "events per CPU s"


def store_alone() -> tuple[str, float, str]:
    """The engine's own reading of the same bytes into the same rows, features as a map; no checks, no profiles."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder))
        store.execute(MAP_TABLE)
        for number, body in enumerate(sent(LINES.name)):
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
    "kafka-poll": poll_alone,
    "kafka-one": lambda: over_kafka(1),
    "kafka-hundred": lambda: over_kafka(100),
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
