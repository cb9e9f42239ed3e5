"""Which comparisons are made, which are not, and whom they accuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from given import NOON, ServiceMaker, ndjson, prediction

from detectors.finding import Finding, Window
from monitor.service import Service

HOUR = timedelta(hours=1)
WINDOW = Window("production", "m", NOON, NOON + HOUR)


def serve(service: Service, server: str, version: str, rows: int, shift: float = 0.0, **more: Any) -> None:
    rng = np.random.default_rng(sum(map(ord, server + version)))
    events = [
        prediction(
            i,
            NOON + i * timedelta(seconds=1),
            server=server,
            version=version,
            prediction_id=f"{server}{version}{i}",
            features={"x": float(rng.normal() + shift)},
            **more,
        )
        for i in range(rows)
    ]
    service.clock.at = NOON + 2 * HOUR  # type: ignore[attr-defined]  # the tests give it a clock that can be set
    service.take(ndjson(events), "http")


def measured(service: Service, detector: str) -> list[Finding]:
    service.references.layout_from_rows(service.registry.get("production", "m"), NOON)
    model = service.registry.get("production", "m")
    return [f for f in service.judge.traffic(model, WINDOW, NOON + HOUR) if f.detector == detector]


def accused(findings: list[Finding]) -> set[str]:
    return {f.subject.server for f in findings if f.p_value is not None and f.p_value < 1e-4 and f.severity >= 1}


def test_one_bad_server_is_accused_and_no_other(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"routing": "random", "windows": ["1h"]}})
    for server in "abcd":
        serve(service, server, "1", 400, shift=2.0 if server == "c" else 0.0)
    assert accused(measured(service, "server_outlier")) == {"c"}


def test_when_half_of_the_fleet_differs_nobody_is_accused(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"routing": "random", "windows": ["1h"]}})
    for server in "abcd":
        serve(service, server, "1", 400, shift=2.0 if server in "ab" else 0.0)
    findings = measured(service, "server_outlier")
    assert {f.p_value for f in findings} == {None}
    assert all("cannot be told" in f.message for f in findings)


def test_of_two_servers_it_is_not_said_which_is_wrong(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"routing": "random", "windows": ["1h"]}})
    serve(service, "a", "1", 400)
    serve(service, "b", "1", 400, shift=2.0)
    assert {f.p_value for f in measured(service, "server_outlier")} == {None}


@pytest.mark.parametrize(
    ("routing", "places", "tested"),
    [
        ("random", {"1": "abc", "2": "def"}, True),
        ("random", {"1": "a", "2": "a"}, True),
        ("random", {"1": "abc", "2": "d"}, False),
        ("unknown", {"1": "abc", "2": "def"}, False),
    ],
)
def test_versions_are_compared_only_where_it_is_the_version_that_differs(
    routing: str, places: dict[str, str], tested: bool, make_service: ServiceMaker
) -> None:
    service = make_service(models={"m": {"routing": routing, "windows": ["1h"], "label_delay": "0s"}})
    for version, servers in places.items():
        for server in servers:
            serve(service, server, version, 300, shift=float(version))
    ids = [f"{s}{v}{i}" for v, servers in places.items() for s in servers for i in range(300)]
    labels = [
        {
            "type": "label",
            "model": "m",
            "prediction_id": i,
            "label": "yes" if i[1] == "1" else "no",
            "timestamp": NOON.timestamp(),
        }
        for i in ids
    ]
    service.take(ndjson(labels), "http")
    contrast = measured(service, "version_contrast")
    drop = [
        f
        for f in service.judge.labels(service.registry.get("production", "m"), WINDOW, NOON + HOUR)
        if f.detector == "accuracy_drop"
    ]
    assert contrast
    assert drop[0].value == pytest.approx(1.0)
    for finding in (*contrast, *drop):
        assert (finding.p_value is not None) == tested
        assert bool(finding.message) != tested


def test_mixed_sampling_weights_weigh_errors_and_accuracy(make_service: ServiceMaker) -> None:
    """All errors shipped and 1 % of the rest: 400 errors and 400 rows that stand for 40,000 are 0.99 % errors."""
    service = make_service(models={"m": {"windows": ["1h"], "label_delay": "0s"}})
    serve(service, "s", "1", 400, status="error", prediction=None)
    serve(service, "t", "1", 400, sampling_fraction=0.01, prediction="right")
    serve(service, "u", "1", 400, prediction="wrong")
    labels = [
        {"type": "label", "model": "m", "prediction_id": f"{s}1{i}", "label": "right", "timestamp": NOON.timestamp()}
        for s in "tu"
        for i in range(400)
    ]
    service.take(ndjson(labels), "http")
    errors = next(f for f in measured(service, "errors") if f.subject.version == "1" and not f.subject.server)
    assert errors.value == pytest.approx(400 / (400 + 40_000 + 400))
    model = service.registry.get("production", "m")
    accuracy = next(f for f in service.judge.labels(model, WINDOW, NOON + HOUR) if not f.subject.server)
    assert accuracy.value == pytest.approx(40_000 / 40_400)
    assert accuracy.effects["label_coverage"] == pytest.approx(1.0, abs=0.01)
    assert accuracy.n == round((40_000 + 400) ** 2 / (400 * 100**2 + 400))


def test_shadow_traffic_is_in_no_verdict(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"windows": ["1h"], "routing": "random"}})
    for server in "abc":
        serve(service, server, "1", 300)
    serve(service, "a", "2", 300, shift=5.0, role="shadow")
    assert {f.n for f in measured(service, "volume")} == {900}
    assert measured(service, "version_contrast") == []
