"""A pod whose rows always come late is told of as others are: once when it drifts, and once when that is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from dashboards.timeline import sentence
from monitor.service import Service

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LATE = 2
"""Hours that pod-2 ships late."""
DRIFTS_UNTIL, COMES_IN_TIME_FROM, LASTS = 5, 7, 11
ROWS = 250
POLICIES = [
    {"name": "inputs", "watch": "drift", "severity": "page"},
    {"name": "servers", "watch": "server_outlier", "severity": "page"},
]


def rows(hour: int, pod: int, shift: float = 0.0) -> list[dict[str, Any]]:
    """Predictions of a pod in an hour."""
    rng = np.random.default_rng([hour, pod])
    events = []
    for n, x in enumerate(rng.normal(shift, 1.0, ROWS).round(3)):
        at = NOON + hour * HOUR + n * timedelta(seconds=14)
        about = {"prediction_id": f"{hour}-{pod}-{n}", "server": f"pod-{pod}", "features": {"x": float(x)}}
        events.append(prediction(n, at, **about))
    return events


def hour_by_hour(service: Service, clock: StillClock, hours: range) -> list[tuple[int, str]]:
    """What the time line says of drift and servers, by the hour in which it was said."""
    for hour in hours:
        end = NOON + (hour + 1) * HOUR
        clock.at = end + MINUTE
        first = hour if hour > COMES_IN_TIME_FROM else hour - LATE
        last = hour if hour >= COMES_IN_TIME_FROM else hour - LATE
        late = [event for h in range(max(first, 0), last + 1) for event in rows(h, 2, 2.0 if h < DRIFTS_UNTIL else 0.0)]
        events = [*rows(hour, 0), *rows(hour, 1), *late]
        service.take(ndjson(events), "http")
        for minute in (5, 6):
            clock.at = end + minute * MINUTE
            service.tick(clock.at)
    said = [e for e in service.ledger.timeline(limit=1000) if e.event.endswith(("_found", "_cleared"))]
    return [((e.at - NOON) // HOUR - 1, e.event) for e in said]


@pytest.mark.parametrize(("monitor", "watch"), [("drift", "drift"), ("servers", "server_outlier")])
def test_a_pod_that_ships_two_hours_late_is_found_once_and_cleared_once(
    make_service: ServiceMaker, clock: StillClock, monitor: str, watch: str
) -> None:
    spec = {"windows": ["1h"], "features": {"x": "numeric"}, "routing": "random", "monitors": [monitor]}
    service = make_service(models={"m": spec}, policies=POLICIES)
    reference = pl.DataFrame({"x": np.random.default_rng(1).normal(0.0, 1.0, 5_000)})
    service.register_reference("m", reference, "training")
    service.take(ndjson(rows(0, 0)[:1]), "http")  # windows are judged from when the model was first heard of
    assert hour_by_hour(service, clock, range(LATE + 1)) == [], "one drifted window, and two that seem well"
    assert hour_by_hour(service, clock, range(LATE + 1, DRIFTS_UNTIL)) == [(LATE + 1, f"{watch}_found")]
    found = next(e.as_line() for e in service.ledger.timeline() if e.event == f"{watch}_found")
    assert found["late"] is True
    assert found["features"] == ["x"]
    assert "found in rows that came late" in sentence(found)
    (firing,) = service.ledger.open_incidents()
    assert firing.server == ("pod-2" if watch == "server_outlier" else "")
    ended = hour_by_hour(service, clock, range(DRIFTS_UNTIL, LASTS))
    assert [event for _, event in ended] == [f"{watch}_found", f"{watch}_cleared"]
    assert DRIFTS_UNTIL + LATE < ended[1][0] < LASTS
