"""What is usual of a model: the same hours of the weeks before, and the scores of earlier windows, on a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from given import StillClock, ndjson, prediction

from detectors.calibration import Mode
from detectors.finding import Finding, Status, Subject, Window
from monitor.config import Config
from monitor.findings import save_findings
from monitor.overview import pictures as model_pictures
from monitor.service import Service
from monitor.usual import HISTORY, Expected, UsualScores, read_expected, read_usual_scores

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday; Europe/Berlin puts its clocks forward on the 29th."""
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
DAYS = 17
LEANING, LEANS = DAYS + 2, 5
BY_HOUR = 20
SPEC = {"windows": ["1d"], "minimum_rows": 100, "features": {"a": "numeric", "b": "numeric"}}


def day(
    model: str, number: int, hours: Iterator[int] | range = range(24), changed: bool = False, moved: float = 0.0
) -> list[dict[str, Any]]:
    """Events of one day. ``a`` follows the hour; ``b`` is another on pod-1 for ever."""
    rng = np.random.default_rng(number)
    events = []
    for hour in hours:
        at = BEGIN + number * DAY + hour * HOUR
        for i in range(BY_HOUR):
            pod = i % 4
            features = {
                "a": rng.normal(hour / 4 + moved),
                "b": rng.normal(3.0 * (pod == 1) + (2.0 if changed and pod == 1 else 0.0)),
            }
            name = f"{number}-{hour}-{i}"
            more = {
                "model": model,
                "server": f"pod-{pod}",
                "features": features,
                "prediction_id": name,
                "prediction": "yes",
            }
            events.append(prediction(i, at + i * timedelta(minutes=3), **more))
    return events


class Past:
    """A model of which every day is judged."""

    def __init__(self, service: Service, clock: StillClock, model: str) -> None:
        self.service, self.clock, self.model = service, clock, model
        clock.at = BEGIN
        rng = np.random.default_rng(99)
        hours = rng.integers(0, 24, 3_000)
        pods = rng.integers(0, 4, 3_000)
        table = pl.DataFrame({"a": rng.normal(hours / 4), "b": rng.normal(3.0 * (pods == 1)), "prediction": "yes"})
        self.service.register_reference(model, table, "training")

    def take(self, number: int, *hours: int, **more: Any) -> None:
        self.clock.at = BEGIN + (number + 1) * DAY
        events = day(self.model, number, iter(hours) if hours else range(24), **more)
        self.service.take(ndjson(events), "http")

    def judge(self, number: int) -> list[Finding]:
        window = Window("production", self.model, BEGIN + number * DAY, BEGIN + (number + 1) * DAY)
        return self.service.judge.traffic(self.service.registry.get("production", self.model), window, self.clock.at)

    def expected(self, start: datetime, end: datetime) -> Expected | None:
        model = self.service.registry.get("production", self.model)
        return read_expected(self.service.store, model, Window("production", self.model, start, end))


def past_of(service: Service, model: str) -> Past:
    clock = service.clock
    assert isinstance(clock, StillClock)
    return Past(service, clock, model)


def of(findings: list[Finding], detector: str, feature: str, **where: str) -> list[Finding]:
    return [
        f
        for f in findings
        if f.detector == detector
        and f.subject.feature == feature
        and not f.subject.without
        and all(getattr(f.subject, name) == value for name, value in where.items())
    ]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = {
        "m": SPEC,
        "nights": SPEC,
        "berlin": {**SPEC, "timezone": "Europe/Berlin", "holidays": [date(2026, 4, 1)]},
    }
    config = Config.model_validate({"store": {"path": tmp_path_factory.mktemp("past")}, "models": models})
    with Service(config, StillClock(BEGIN)) as service:
        yield service


@pytest.fixture(scope="module")
def played(service: Service) -> tuple[Past, dict[int, list[Finding]]]:
    """Quiet days; one with traffic in the afternoon only; one with a change on pod-1; five on which ``a`` leans."""
    past = past_of(service, "m")
    found = {}
    for number in range(DAYS):
        past.take(number)
        found[number] = past.judge(number)
    past.take(DAYS, *range(12, 18))
    found[DAYS] = past.judge(DAYS)
    past.take(DAYS + 1, changed=True)
    found[DAYS + 1] = past.judge(DAYS + 1)
    for number in range(LEANING, LEANING + LEANS):
        past.take(number, moved=0.5)
        found[number] = past.judge(number)
    return past, found


Played = tuple[Past, dict[int, list[Finding]]]


def test_drift_is_judged_against_the_reference_until_it_is_known_what_is_usual(played: Played) -> None:
    _, found = played
    baselines = {n: {f.baseline: f for f in of(findings, "drift", "a")} for n, findings in found.items()}
    assert [set(baselines[n]) for n in (0, 6)] == [{"reference:training"}] * 2
    assert [set(baselines[n]) for n in (7, 14)] == [{"reference:training", "history"}] * 2
    assert [set(baselines[n]) for n in (16, DAYS)] == [{"history"}] * 2
    learning, judged = baselines[10]["history"], baselines[16]["history"]
    assert (learning.p_value, learning.message[:10]) == (None, "not tested")
    assert (judged.mode, judged.message) == (Mode.HISTORY, "")
    assert judged.p_value is not None
    assert baselines[10]["reference:training"].mode == Mode.INDEPENDENT_ROWS


def test_quiet_days_are_quiet(played: Played) -> None:
    _, found = played
    for number in (15, 16):
        p_values = [f.p_value for f in found[number] if f.detector == "drift" and f.p_value is not None]
        assert min(p_values) > 1e-3


def test_parts_of_hours_are_not_held_against_the_reference_once_it_is_known_what_is_usual(played: Played) -> None:
    """Somebody asks for the last day at half past; with a reference or without."""
    past, _ = played
    model = past.service.registry.get("production", "m")
    for of_model in (model, replace(model, references={})):
        window = Window("production", "m", BEGIN + 16 * DAY + HOUR / 2, BEGIN + 17 * DAY + HOUR / 2)
        (found,) = [f for f in past.service.judge.anew(of_model, window, "traffic") if f.detector == "drift"]
        assert (found.status, found.baseline, found.p_value) == (Status.NOT_ENOUGH_DATA, "history", None)
        assert found.message == "not tested: what is usual is known by whole hours; name a time on the hour"


def test_other_hours_of_traffic_are_no_drift(played: Played) -> None:
    """Only the afternoon came, of a feature that follows the hour: unlike any day before, and like every afternoon."""
    _, found = played
    (afternoon,) = of(found[DAYS], "drift", "a")
    assert afternoon.p_value is not None
    assert afternoon.p_value > 1e-3


def test_servers_that_always_differ_are_judged_by_how_they_usually_differ(played: Played) -> None:
    """Nothing is said of routing. pod-1 differs for ever; it is told of when it differs more."""
    _, found = played
    before, usual, changed = (of(found[n], "server_outlier", "b", server="pod-1")[0] for n in (3, 16, DAYS + 1))
    assert (before.p_value, before.scores["location"] > 10) == (None, True)
    assert usual.p_value is not None
    assert usual.p_value > 1e-3
    assert changed.p_value is not None
    assert changed.p_value < 1e-6
    unchanged = of(found[DAYS + 1], "server_outlier", "a", server="pod-1")[0]
    assert unchanged.p_value is not None
    assert unchanged.p_value > 1e-3


def test_days_that_lean_to_one_side_add_up(played: Played) -> None:
    """A quarter of a standard deviation each, which most of the days tell less surely."""
    _, found = played
    quiet = of(found[16], "gradual_drift", "a")[0]
    assert (quiet.severity, quiet.scores) == (0.0, {})
    assert quiet.p_value is not None
    assert quiet.p_value > 0.05
    last = LEANING + LEANS - 1
    (leaning,) = of(found[last], "gradual_drift", "a")
    of_days = [of(found[n], "drift", "a")[0].p_value or 0.0 for n in range(LEANING, last + 1)]
    assert leaning.p_value is not None
    assert leaning.p_value < min(0.02, sorted(of_days)[LEANS // 2]), (leaning, of_days)
    assert leaning.message in {f"since {BEGIN + n * DAY:%Y-%m-%d}" for n in (LEANING, LEANING + 1)}
    assert leaning.component == "location"
    assert leaning.n >= 4 * 24 * BY_HOUR
    assert 0.03 < leaning.effects["location_auc"] < 0.08  # a quarter of a standard deviation is 0.07


def test_what_is_usual_comes_back_from_the_store_as_it_was_measured(played: Played) -> None:
    past, found = played
    stored = {f["id"]: f for f in past.service.findings("m", BEGIN + 16 * DAY, 10_000)}
    for finding in found[16]:
        assert stored[finding.id]["mode"] == finding.mode
    model = past.service.registry.get("production", "m")
    again = past.service.judge.traffic(model, found[16][0].window, past.clock.at)
    assert [(f.id, f.p_value) for f in again] == [(f.id, f.p_value) for f in found[16]]


def test_a_day_that_was_not_judged_keeps_its_place_among_the_scores_of_the_past() -> None:
    """When the scores of a change that stayed fade says where it began."""
    starts = [BEGIN + n * DAY for n in (0, 1, 3)]
    named = {"feature": "a", "score_name": "location", "score": [1.0, 2.0, 4.0], "exposure": 9.0, "calibrated": 0.0}
    rows = pl.DataFrame({"start": starts, **named})
    scores = UsualScores(DAY, {(*key, "", "", ""): rows for key in (("drift", HISTORY), ("server_outlier", "fleet"))})
    of_history, of_fleet = scores.of("drift", HISTORY, Subject()), scores.of("server_outlier", "fleet", Subject())
    assert of_history is not None
    assert of_fleet is not None
    assert np.array_equal(of_history.past.z, [[1.0], [2.0], [np.nan], [4.0]], equal_nan=True)
    assert of_history.past.trails == timedelta(days=28)
    assert of_fleet.past.trails is None


def test_hours_without_a_past_make_a_window_that_is_not_judged_by_it(service: Service) -> None:
    past = past_of(service, "nights")
    for number in range(8):
        past.take(number, 0, 1, 2, 3)
    past.take(8)
    start = BEGIN + 8 * DAY
    assert past.expected(start, start + 4 * HOUR) is not None
    assert past.expected(start, start + DAY) is None
    assert past.expected(start + HOUR / 2, start + 3 * HOUR) is None, "these are no whole hours"


def test_slots_follow_the_clock_on_the_wall_and_the_holidays(service: Service) -> None:
    """8 o'clock in Berlin is 7:00Z in winter and 6:00Z in summer. 1 April is declared a holiday, and has no past."""
    past = past_of(service, "berlin")
    for number in range(12, 26):
        past.take(number, 7)
    summer = datetime(2026, 3, 30, 6, tzinfo=UTC)
    for number in (28, 29, 30):
        past.take(number, 6)
    eight = past.expected(summer, summer + HOUR)
    assert eight is not None
    cells = service.registry.get("production", "berlin").layout
    assert cells is not None
    assert eight.counts[cells.spans["a"]].sum() == pytest.approx(10 * BY_HOUR), "ten weekdays of two weeks"
    holiday = past.expected(summer + 2 * DAY, summer + 2 * DAY + HOUR)
    assert holiday is not None
    assert holiday.counts[cells.spans["a"]].sum() == pytest.approx(4 * BY_HOUR), "two weekends"


def test_pictures_show_what_was_usual_in_those_hours(played: Played) -> None:
    """The afternoon of a feature that follows the hour: the reference is of all hours, the picture is not."""
    past, found = played
    model = past.service.registry.get("production", "m")
    (picture,) = [p for p in model_pictures(past.service, model, found[DAYS]) if p["feature"] == "a"]
    assert picture["baseline"] == "history"
    assert sum(abs(b - s) for b, s in zip(picture["baseline_shares"], picture["shares"], strict=True)) / 2 < 0.25
    assert picture["statistics"]["kolmogorov_smirnov"] < 0.2


def test_windows_of_a_length_that_is_only_tried_are_held_against_what_is_usual_too(played: Played) -> None:
    """Servers that always differ are only tested once that is known; pod-1 changed on one day."""
    past, _ = played
    policy = {"name": "servers", "watch": "server_outlier", "window": "12h", "hold": 1}
    tried = {"models": {"m": {**SPEC, "windows": ["1d", "12h"], "minimum_rows": 50}}, "policies": [policy]}
    answer = past.service.replay("m", BEGIN + 16 * DAY, BEGIN + (DAYS + 2) * DAY, other=json.dumps(tried).encode())
    assert [(i["server"], i["since"][:10]) for i in answer["incidents"]] == [("pod-1", "2026-03-20")]
    assert (answer["policies"][0]["ok"], answer["policies"][0]["drifted"]) == (4, 4), "one day has few rows"
    assert answer["notes"] == ["82 windows before the first were measured, too, to learn what is usual"]


def test_what_is_usual_is_learned_from_windows_that_begin_at_the_same_hour(service: Service) -> None:
    """Days of Los Angeles begin at 8:00: a window of one such day differs more than one that holds parts of two."""
    model = service.registry.get("production", "berlin")

    def window(hours: int) -> Window:
        return Window("production", "berlin", BEGIN + hours * HOUR, BEGIN + (hours + 24) * HOUR)

    subject = Subject(feature="a")
    save_findings(
        service.store,
        [
            Finding(window(8 * i), subject, "drift", "history", scores={"location": 8.0 * (i % 3)}, exposure=1.0)
            for i in range(9)
        ],
        BEGIN,
    )

    def learned(hours: int) -> list[float]:
        usual = read_usual_scores(service.store, model, window(hours)).of("drift", "history", Subject())
        return [] if usual is None else usual.past.z[:, 0].tolist()

    assert learned(24 * 3) == [0.0] * 3
    assert learned(24 * 3 + 8) == [8.0] * 3, "the last of them ends when this one begins"
    assert learned(24 * 3 - 8) == [16.0] * 2, "none of them overlaps it"
    assert learned(24 * 3 + 13) == [0.0] * 3, "asked for by somebody, at an hour at which no window begins"
