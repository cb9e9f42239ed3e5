"""When a window's rows are held against those of other windows, and which rows these are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
from given import NOON, ServiceMaker, StillClock, ndjson

from detectors.finding import Finding, Status, Subject, Window
from monitor.config import MONITORS
from monitor.findings import latest_findings, save_findings
from monitor.joint import joint_findings
from monitor.registry import Model
from monitor.service import Service

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WEDNESDAY = NOON + 3 * DAY
WINDOW = Window("production", "m", WEDNESDAY, WEDNESDAY + HOUR)
SPEC: dict[str, Any] = {
    "windows": ["15m", "1h"],
    "minimum_rows": 50,
    "features": {"x": "numeric", "y": "numeric", "c": "categorical"},
}
ALARM = Finding(WINDOW, Subject(feature="x"), "drift", "reference:train", p_value=1e-6, severity=3.0)


def rows(at: datetime, count: int, correlation: float = 0.0, **more: Any) -> bytes:
    rng = np.random.default_rng(int(at.timestamp()))
    x, noise = rng.normal(size=(2, count))
    y = (correlation * x + np.sqrt(1 - correlation**2) * noise).tolist()
    x = x.tolist()
    return ndjson(
        [
            {
                "type": "prediction",
                "model": "m",
                "version": "1",
                "server": "pod-1",
                "prediction_id": f"{at:%m%dT%H}-{i}",
                "timestamp": (at + i * HOUR / count).timestamp(),
                "features": {"x": x[i], "y": y[i], "c": "ab"[i % 2]} if i % 10 else {"y": "none"},
                "prediction": "yes",
                **more,
            }
            for i in range(count)
        ]
    )


def make(make_service: ServiceMaker, clock: StillClock, days: int = 6, **spec: Any) -> Service:
    """A service that has an hour of each of the days before, and of a Wednesday on which x and y go together."""
    clock.at = WEDNESDAY + HOUR
    service = make_service(models={"m": {**SPEC, **spec}})
    for day in [*range(1, days + 1)]:
        service.take(rows(WEDNESDAY - day * DAY, 80), "http")
    service.take(rows(WEDNESDAY, 80, correlation=0.9), "http")
    return service


def model_of(service: Service) -> Model:
    return service.registry.get("production", "m")


def judged(service: Service, window: Window = WINDOW, *findings: Finding) -> list[Finding]:
    found = list(joint_findings(service.store, model_of(service), window, findings))
    save_findings(service.store, found, NOON)
    return found


def test_the_longest_windows_are_held_against_the_same_hours_of_working_days(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    service = make(make_service, clock, days=8, monitors=["joint"])
    (found,) = service.judge.traffic(model_of(service), WINDOW, clock.at)[-1:]
    assert (found.detector, found.baseline, found.status) == ("joint", "other_windows", Status.MEASURED)
    assert found.n == 80
    assert found.n_baseline == 6 * 80  # of eight days two were a weekend
    assert found.effects["windows"] == 6
    assert found.p_value is not None
    assert found.p_value <= 0.05
    assert "x and y" in found.message
    assert latest_findings(service.store, "production", "m", WEDNESDAY, 10, "joint") == [found]


def test_shorter_windows_and_models_that_do_not_ask_are_left_alone(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    service = make(make_service, clock, days=0, monitors=["drift", "joint"])
    quarter = Window("production", "m", WEDNESDAY, WEDNESDAY + HOUR / 4)
    assert judged(service, quarter) == []
    assert "joint" not in MONITORS
    service = make_service(models={"m": SPEC})
    assert judged(service) == []


def test_only_drift_that_is_severe_and_no_chance_is_looked_into(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make(make_service, clock, days=0)
    for finding in (
        Finding(WINDOW, Subject(feature="x"), "drift", p_value=1e-6, severity=0.9),
        Finding(WINDOW, Subject(feature="x"), "drift", p_value=0.02, severity=3.0),
        Finding(WINDOW, Subject(feature="x", without=("server=s",)), "drift", p_value=1e-6, severity=3.0),
        Finding(WINDOW, Subject(feature="x"), "server_outlier", p_value=1e-6, severity=3.0),
    ):
        assert judged(service, WINDOW, finding) == []
    assert len(judged(service, WINDOW, ALARM)) == 1


def test_an_alarm_is_looked_into_once_a_day(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make(make_service, clock, days=8)
    (found,) = judged(service, WINDOW, ALARM)
    assert found.baseline == "other_windows"
    an_hour_later = Window("production", "m", WINDOW.end, WINDOW.end + HOUR)
    assert judged(service, an_hour_later, ALARM) == []
    a_day_later = Window("production", "m", WINDOW.start + DAY, WINDOW.end + DAY)
    assert len(judged(service, a_day_later, ALARM)) == 1
    quarter = Window("production", "m", WINDOW.start, WINDOW.start + HOUR / 4)
    assert len(judged(service, quarter, ALARM)) == 1


def test_without_enough_days_the_reference_window_is_taken(make_service: ServiceMaker, clock: StillClock) -> None:
    at = WEDNESDAY - DAY
    window = {"start": at.isoformat(), "end": (at + HOUR).isoformat()}
    service = make(make_service, clock, days=4, reference={"window": window})
    (found,) = judged(service, WINDOW, ALARM)
    assert found.baseline == "reference:2026-03-03T12:00Z..2026-03-03T13:00Z"
    assert (found.n, found.n_baseline, found.effects["windows"]) == (80, 80, 0)


def test_without_any_rows_to_compare_with_it_says_so(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make(make_service, clock, days=4)
    (found,) = judged(service, WINDOW, ALARM)
    assert found.status is Status.NOT_ENOUGH_DATA
    assert found.message == (
        "of the windows at these hours in the four weeks before, 2 have 50 kept rows, and 5 are needed; "
        "nor is there a reference window before this one"
    )


def test_a_window_that_is_judged_again_keeps_what_rests_on_enough_rows(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    service = make(make_service, clock, days=0)
    enough = Finding(WINDOW, Subject(), "joint", "other_windows", value=0.7, n=5_000)
    few = Finding(WINDOW, Subject(), "joint", "other_windows", value=0.7, n=100)
    save_findings(service.store, [few], NOON)
    assert [f.value for f in judged(service, WINDOW, ALARM)] == [None]
    save_findings(service.store, [enough], NOON + DAY)
    assert [f.value for f in judged(service, WINDOW, ALARM)] == [0.7]


def sample(service: Service, most: int) -> list[str]:
    place = {"environment": "production", "model": "m"}
    rows = service.store.query("row_sample", **place, start=WINDOW.start, end=WINDOW.end, most=most)
    ids: list[str] = rows["prediction_id"].to_list()
    return ids


def test_a_sample_depends_on_the_ids_alone_and_has_each_once(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make(make_service, clock, days=0)
    all_of_them, some = sample(service, 1_000), sample(service, 30)
    assert sorted(all_of_them) == sorted(f"0304T12-{i}" for i in range(80))
    assert some == all_of_them[:30]
    service.take(rows(WEDNESDAY, 80), "http", key="they come again")
    assert sample(service, 30) == some


def test_a_sample_has_rows_in_proportion_to_what_they_stand_for(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make(make_service, clock, days=0)
    service.take(rows(WEDNESDAY + HOUR / 2, 300, sampling_fraction=0.1).replace(b"0304T12", b"light"), "http")
    ids = sample(service, 1_000)
    light = [i for i in ids if i.startswith("light")]
    assert len(ids) - len(light) < 25  # about 8 of 80
    assert len(light) == 150  # the others come after the window
