"""Where a budget of false alarms goes, as people and pipelines ask for it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from detectors.finding import Window
from monitor.remote import RemoteService
from monitor.running import listening, serve
from monitor.show import show_budget

HOUR = timedelta(hours=1)
POLICIES = [
    {"name": "inputs", "watch": "drift"},
    {"name": "page", "watch": "drift", "severity": "page"},
    {"name": "worse", "watch": "accuracy_drop", "window": "1d"},
    {"name": "slow", "watch": "latency", "limit": 100.0},
    {"name": "quiet", "watch": "silence"},
]


def test_the_budget_is_shared_out_and_all_of_it_is_told(
    make_service: ServiceMaker, clock: StillClock, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"windows": ["1h", "1d"], "features": {"x": "numeric", "c": "categorical"}, "false_alarms_per_week": 2.0}
    service = make_service(models={"m": spec}, policies=POLICIES)
    rng = np.random.default_rng(5)
    table = pl.DataFrame({"x": rng.integers(0, 7, 1_000).astype(float), "c": rng.choice(["a", "b"], 1_000)})
    service.register_reference("m", table, "training")
    service.take(ndjson([prediction(i, NOON - (i + 1) * timedelta(seconds=10)) for i in range(300)]), "http")
    clock.at = NOON + timedelta(minutes=5)
    service.judge.traffic(
        service.registry.get("production", "m"), Window("production", "m", NOON - HOUR, NOON), clock.at
    )

    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        answer = RemoteService(url).budget("m")
    assert answer == service.budget("m")
    drift, accuracy, slow = answer["looks"]
    assert (drift["watch"], drift["window"], drift["policies"]) == ("drift", "1h", ["inputs", "page"])
    assert (accuracy["watch"], accuracy["window"], accuracy["policies"]) == ("accuracy_drop", "1d", ["worse"])
    assert sum(look["per_week"] for look in answer["looks"]) + answer["reserved_per_week"] == pytest.approx(2.0)
    assert drift["alpha"] * 168 == pytest.approx(drift["per_week"])
    assert (drift["comparisons"], drift["features"], drift["calibrated"]) == (2, 2, 0)
    assert "comparisons" not in accuracy
    assert (slow["watch"], slow["policies"], slow["comparisons"], slow["servers"]) == ("latency", ["slow"], 2, 1)
    assert answer["outside"] == ["quiet"]

    show_budget(answer)
    told = " ".join(capsys.readouterr().out.split())
    assert "at most 2 false alarms a week; 0.2 of it are kept for windows that are judged again" in told
    assert "Are about facts, and take nothing of it: quiet" in told


def test_a_model_without_tests_spends_nothing(make_service: ServiceMaker, capsys: pytest.CaptureFixture[str]) -> None:
    answer = make_service(models={"m": {}}, policies=[{"name": "quiet", "watch": "silence"}]).budget("m")
    assert (answer["looks"], answer["reserved_per_week"], answer["outside"]) == ([], 0.0, ["quiet"])
    show_budget(answer)
    assert "nothing is spent" in capsys.readouterr().out
