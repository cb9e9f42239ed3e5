"""Policies tried on a past that was imported, and that nobody has judged."""

from __future__ import annotations

import random
from datetime import timedelta

import polars as pl
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

HOUR = timedelta(hours=1)


def test_imported_history_that_was_never_judged_is_measured(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON + timedelta(days=300)
    policies = [{"name": "inputs", "watch": "drift", "hold": 1}, {"name": "silent", "watch": "silence"}]
    service = make_service(models={"m": {"windows": ["1h"]}}, policies=policies)
    dice = random.Random(1)
    service.register_reference("m", pl.DataFrame({"x": [dice.gauss(0, 1) for _ in range(2000)]}), "train")
    history = []
    for i in range(900):
        features = {"x": dice.gauss(3.0 if 300 <= i < 600 else 0.0, 1)}
        history.append(prediction(i, NOON + i * timedelta(seconds=12), features=features))
    service.take(ndjson(history), "file")
    answer = service.replay("m", NOON - 24 * HOUR, NOON + 3 * HOUR)
    assert (answer["windows_stored"], answer["windows_measured_anew"]) == (0, 3)
    told = [(i["policy"], i["since"][:16], i["features"]) for i in answer["incidents"]]
    assert told == [("inputs", "2026-03-01T14:02", ["x"])]
    assert service.store.select("SELECT count() AS n FROM findings")["n"][0] == 0
