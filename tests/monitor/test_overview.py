"""What the page is given: pictures of what changed, and nothing that hides."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from given import NOON, ServiceMaker, ndjson, prediction

from detectors.finding import Finding, Subject, Window
from monitor.findings import save_findings
from monitor.overview import MOST_BARS, MOST_PICTURES, overview
from monitor.service import Service

SPAN = timedelta(minutes=30)


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    """A model whose ``x`` lost a third of its values and moved, while ``c`` and ``z`` stayed."""
    service = make_service(
        models={"m": {"windows": ["1h", "3h"], "features": {"x": "numeric", "c": "categorical", "z": "numeric"}}}
    )
    table = pl.DataFrame({"x": [i / 10 for i in range(3000)], "c": ["a", "b"] * 1500, "z": [0.0, 1.0, 2.0] * 1000})
    service.register_reference("m", table, "train.parquet")
    events = [
        prediction(
            i, NOON - SPAN, features={"x": None if i % 3 == 0 else i / 10 + 50, "c": "ab"[i % 2], "z": float(i % 3)}
        )
        for i in range(3000)
    ]
    service.take(ndjson(events), "http")
    service.evaluate("m", NOON)
    return service


def test_pictures_show_the_worst_features_with_their_states_on_their_own(service: Service) -> None:
    model = overview(service)["models"][0]
    pictures = {p["feature"]: p for p in model["pictures"]}
    assert next(iter(pictures)) == "x"
    worst = pictures["x"]
    assert len(worst["labels"]) <= MOST_BARS + 4
    assert worst["labels"][-1] == "missing"
    assert (worst["baseline_shares"][-1], worst["shares"][-1]) == (0.0, pytest.approx(1 / 3))
    assert {"psi", "kolmogorov_smirnov", "wasserstein_sd", "jensen_shannon"} < worst["statistics"].keys()
    for picture in pictures.values():
        assert sum(picture["shares"]) == pytest.approx(1)
        assert sum(picture["baseline_shares"]) == pytest.approx(1)


def test_as_many_features_are_pictured_while_it_is_learned_what_is_usual(make_service: ServiceMaker) -> None:
    """Each is then held against its reference and, without a test, against the hours before."""
    names = [f"f{i}" for i in range(MOST_PICTURES + 2)]
    service = make_service(models={"m": {"windows": ["1h"], "features": dict.fromkeys(names, "numeric")}})
    service.register_reference("m", pl.DataFrame({name: np.arange(500.0) for name in names}), "train.parquet")
    events = [prediction(i, NOON - SPAN, features=dict.fromkeys(names, i / 2)) for i in range(500)]
    service.take(ndjson(events), "http")
    window = Window("production", "m", NOON - timedelta(hours=1), NOON)
    tested, learning = ("reference:train.parquet", 1e-6), ("history", None)
    found = [
        Finding(window, Subject(feature=name), "drift", baseline, p_value=p, severity=2.0 + i + (p is None))
        for i, name in enumerate(names)
        for baseline, p in (tested, learning)
    ]
    save_findings(service.store, found, NOON)
    pictures = overview(service)["models"][0]["pictures"]
    assert [p["feature"] for p in pictures] == names[: -MOST_PICTURES - 1 : -1]
    assert {p["baseline"] for p in pictures} == {"reference:train.parquet"}


def test_the_table_is_of_the_shortest_window_that_ended_last(service: Service) -> None:
    latest = overview(service)["models"][0]["latest"]
    assert {f["start"] for f in latest} == {(NOON - timedelta(hours=1)).isoformat()}
    assert latest[0]["feature"] == "x"


def test_a_service_that_knows_nothing_has_an_empty_page(make_service: ServiceMaker) -> None:
    empty = overview(make_service())
    assert (empty["models"], empty["firing"], empty["timeline"], empty["servers"]) == ([], [], [], [])
