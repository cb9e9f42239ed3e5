"""How long it takes to remove what was kept for long enough, from a store with millions of rows.

``python -m benchmarks.removing`` prints a table: the first run has a day's rows to remove, the others have nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from monitor.config import Config
from monitor.service import Service

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 91
A_DAY = 30_000
MODELS = 10
PREDICTIONS = """
INSERT INTO predictions
    (environment, model, version, server, role, prediction_id, timestamp, received, score, source, batch, row)
SELECT 'production', concat('m', toString(number % {models})), '1', concat('pod-', toString(number % 7)), 'live',
    toString(number), at, at, rand() / 4e9, 'kafka/t/0/log', toString(intDiv(number, 20000)), number % 20000
FROM (SELECT number, toDateTime64('2026-03-02 00:00:00', 3, 'UTC') + number * {step} AS at FROM numbers({rows}))
"""
FEATURES = """
INSERT INTO features
    (environment, model, version, server, role, prediction_id, timestamp, schema_id, num, cat, source, batch, row)
SELECT environment, model, version, server, role, prediction_id, timestamp, 1,
    arrayMap(i -> rand(i) / 4e9, range(20)), ['a', 'b', 'c', 'd', 'e'], source, batch, row
FROM predictions
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = {f"m{n}": {"windows": ["1h"]} for n in range(MODELS)}
        with Service(Config.model_validate({"store": {"path": Path(folder)}, "models": models})) as service:
            _fill(service)
            _say("| run | rows removed | seconds | CPU seconds | on disk, MB |")
            _say("| --- | --- | --- | --- | --- |")
            for name, at in (
                ("a day's rows", NOW),
                ("nothing to do", NOW),
                ("five weeks' rows", NOW + timedelta(days=35)),
            ):
                began, spent = time.perf_counter(), time.process_time()
                rows = sum(service.keeper.run(at, at, lambda _: NOW).values())
                took, cpu = time.perf_counter() - began, time.process_time() - spent
                time.sleep(5)  # what is given back is so in the background
                named = "table IN ('predictions', 'features')"
                sizes = f"SELECT sum(bytes_on_disk) AS n FROM system.parts WHERE active AND {named}"  # noqa: S608 - our own
                size = service.store.select(sizes)["n"][0]
                _say(f"| {name} | {rows:,} | {took:.2f} | {cpu:.2f} | {size / 1e6:,.0f} |")


def _fill(service: Service) -> None:
    rows = DAYS * A_DAY
    service.store.execute(PREDICTIONS.format(models=MODELS, step=86400 / A_DAY, rows=rows))
    service.store.execute(FEATURES)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
