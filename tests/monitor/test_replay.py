"""Policies tried on what a service has stored: as in life, with other settings, over the API and by a command."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import urllib3
from given import NOON, StillClock, ndjson, prediction

from monitor.cli import main
from monitor.config import Config
from monitor.config_file import rules_to_send
from monitor.replay import HourlyTraffic, ReplayError
from monitor.running import listening, serve
from monitor.service import Service

HOUR = timedelta(hours=1)
HOURS = 10
END = NOON + HOURS * HOUR
SHIFTED = range(3, 7)
"""Hours in which x is larger by two of its deviations."""
MODEL: dict[str, Any] = {
    "windows": ["1h", "2h"],
    "label_delay": "1h",
    "routing": "random",
    "minimum_rows": 100,
    "features": {"x": "numeric", "y": "numeric"},
    "monitors": ["drift", "accuracy", "latency"],
}
POLICIES: list[dict[str, Any]] = [
    {"name": "inputs", "watch": "drift", "hold": 1, "clear": 1},
    {"name": "held", "watch": "drift", "window": "2h", "hold": 2},
    {"name": "worse", "watch": "accuracy_drop", "hold": 1, "margin": 0.01},
]
KEYS: list[dict[str, Any]] = [
    {"name": "reader", "key_env": "READER_KEY", "scopes": ["read"], "models": ["m"]},
    {"name": "other", "key_env": "OTHER_KEY", "scopes": ["read"], "models": ["another"]},
]


def events(dice: random.Random) -> Iterator[dict[str, Any]]:
    for hour in range(HOURS):
        for i in range(300):
            at = NOON + hour * HOUR + timedelta(seconds=12 * i)
            version = "2" if i % 2 else "1"
            features = {"x": dice.gauss(2.0 if hour in SHIFTED else 0.0, 1), "y": dice.gauss(0, 1)}
            about = {"version": version, "server": f"pod-{i % 4}", "features": features}
            yield prediction(i, at, prediction_id=f"{hour}-{i}", **about)
            right = dice.random() < (0.6 if version == "2" and hour in SHIFTED else 0.95)
            label = {"type": "label", "model": "m", "prediction_id": f"{hour}-{i}", "timestamp": at.timestamp()}
            yield {**label, "label": "yes" if right else "no"}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has judged ten hours as they came."""
    folder = tmp_path_factory.mktemp("replay")
    config = {"store": {"path": folder}, "models": {"m": MODEL}, "policies": POLICIES, "api_keys": KEYS}
    clock = StillClock(NOON)
    with pytest.MonkeyPatch.context() as patch:
        for key in KEYS:
            patch.setenv(key["key_env"], key["name"])
        with Service(Config.model_validate(config), clock) as service:
            dice = random.Random(1)
            table = pl.DataFrame({name: [dice.gauss(0, 1) for _ in range(3000)] for name in ("x", "y")})
            service.register_reference("m", table, "train")
            service.take(ndjson([prediction(0, NOON, prediction_id="first", features={"x": 0.0})]), "http")
            clock.at = END
            service.take(ndjson(list(events(dice))), "http")
            for hour in range(HOURS + 2):
                clock.at = NOON + hour * HOUR + timedelta(minutes=2)
                service.judge_due(clock.at)
                service.follow(clock.at)
            yield service


def found_in_life(service: Service) -> list[tuple[str, str, str, list[str]]]:
    lines = [e.as_line() for e in service.ledger.timeline(limit=1000) if e.event.endswith("_found")]
    return sorted((e["policy"], e["at"][:16], e.get("version", ""), e.get("features", [])) for e in lines)


def told(answer: dict[str, Any]) -> list[tuple[str, str, str, list[str]]]:
    return sorted((i["policy"], i["since"][:16], i["version"], i["features"]) for i in answer["incidents"])


def counted(answer: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {p["policy"]: (p["windows"], p["fired"]) for p in answer["policies"]}


def with_rules(**changes: Any) -> bytes:
    return json.dumps({"models": {"m": {**MODEL, **changes}}, "policies": POLICIES}).encode()


def test_a_replay_finds_what_was_found_in_life(lived: Service) -> None:
    answer = lived.replay("m", NOON - 30 * HOUR, END)
    assert told(answer) == found_in_life(lived)
    assert {i[0] for i in told(answer)} == {"inputs", "held", "worse"}
    assert answer["windows_measured_anew"] == 0
    assert counted(answer) == {"inputs": (10, 1), "held": (5, 1), "worse": (10, 1)}
    (inputs,) = [i for i in answer["incidents"] if i["policy"] == "inputs"]
    assert (inputs["since"], inputs["until"]) == ("2026-03-01T16:02:00+00:00", "2026-03-01T20:02:00+00:00")
    assert (answer["from"], answer["to"]) == (NOON.isoformat(), END.isoformat())
    assert answer["expected_false_alarms"] == pytest.approx(10 / 168, abs=1e-3)


def test_a_past_begins_with_its_first_events_whatever_was_asked_of_earlier_times(lived: Service) -> None:
    lived.evaluate("m", NOON - timedelta(days=400))
    answer = lived.replay("m", NOON - timedelta(days=800), END)
    assert answer["from"] == NOON.isoformat()


def test_a_part_of_the_past_knows_nothing_of_what_was_before(lived: Service) -> None:
    answer = lived.replay("m", NOON + 4 * HOUR, NOON + 6 * HOUR)
    assert counted(answer)["inputs"] == (2, 1)
    (inputs,) = [i for i in answer["incidents"] if i["policy"] == "inputs"]
    assert (inputs["since"], inputs["until"]) == ("2026-03-01T17:02:00+00:00", None)


def test_what_was_never_measured_is_measured_anew_and_nothing_is_kept(lived: Service) -> None:
    count = "SELECT count() AS n FROM {} FINAL"
    kept = [lived.store.select(count.format(t))["n"][0] for t in ("findings", "judgements", "profile_hours")]
    other = with_rules(windows=["1h", "2h", "5h"], monitors=[*MODEL["monitors"], "servers"], label_delay="2h")
    rules = json.loads(other)
    rules["policies"] += [
        {"name": "long", "watch": "drift", "window": "5h", "hold": 1},
        {"name": "servers", "watch": "server_outlier", "hold": 1},
    ]
    answer = lived.replay("m", NOON, END, other=json.dumps(rules).encode())
    why = {p["policy"]: p["measured_anew"] for p in answer["policies"]}
    assert why == {
        "inputs": [],
        "held": [],
        "worse": ["label_delay was 1h, and is 2h"],
        "long": ["windows of 5h were never measured"],
        "servers": ["the monitor 'servers' was off"],
    }
    assert answer["windows_measured_anew"] == 10 + 9 + 1, "an hour of labels is not there yet"
    assert {i[0] for i in told(answer)} == {"inputs", "held", "worse", "long"}
    assert [lived.store.select(count.format(t))["n"][0] for t in ("findings", "judgements", "profile_hours")] == kept


def test_measured_anew_is_as_measured(lived: Service) -> None:
    model = lived.registry.get("production", "m")
    anew = lived.replay("m", NOON, END, other=with_rules(minimum_rows=99))
    assert anew["windows_stored"] == 0
    assert [p["measured_anew"][0] for p in anew["policies"]] == ["minimum_rows was 100, and is 99"] * 3
    assert told(anew) == found_in_life(lived)
    assert lived.registry.get("production", "m") == model
    few = lived.replay("m", NOON, END, other=with_rules(minimum_rows=400))
    assert {p["policy"]: p["unsure"] for p in few["policies"]} == {"inputs": 10, "held": 0, "worse": 10}


def test_what_cannot_be_tried_is_said(lived: Service) -> None:
    other = with_rules(features={"x": "numeric"}, monitors=["drift"], false_alarms_per_week=5)
    answer = lived.replay("m", NOON, END, other=other)
    assert answer["notes"] == [
        "features of the other configuration: not tried, as the past was counted with what is now",
        "nothing is measured for worse: the monitor is off",
    ]
    assert counted(answer)["worse"] == (0, 0)
    assert answer["false_alarms_per_week"] == 5
    none = lived.replay("m", NOON, END, other=b'{"policies": []}')
    assert (none["policies"], none["notes"]) == ([], ["no policy watches model 'm'"])
    with pytest.raises(ReplayError, match="the span ends before it begins"):
        lived.replay("m", END, NOON)


def called(url: str, body: bytes = b"", key: str = "reader") -> tuple[int, Any]:
    answer = urllib3.request("POST", url, body=body or None, headers={"Authorization": f"Bearer {key}"}, retries=False)
    return answer.status, answer.json()


def test_too_long_a_span_is_refused_before_anything_is_measured(
    lived: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.replay.MOST_ANEW", HOURS - 1)
    monkeypatch.setattr("monitor.judge.Judge.anew", lambda *_: pytest.fail("a window was measured"))
    tried = json.dumps({"models": {"m": MODEL | {"minimum_rows": 50}}, "policies": POLICIES[:1]}).encode()
    with pytest.raises(ReplayError, match="more than 9 windows would have to be measured anew; name a shorter span"):
        lived.replay("m", NOON, END, other=tried)


def test_the_api_asks_for_read_and_refuses_what_is_wrong(lived: Service) -> None:
    path = f"/v1/models/m/replay?start={NOON:%Y-%m-%dT%H:%MZ}&end={END:%Y-%m-%dT%H:%MZ}"
    with listening("127.0.0.1", 0) as (listener, url), serve(lived, listener, url):
        status, answer = called(url + path)
        assert (status, told(answer)) == (200, found_in_life(lived))
        status, answer = called(url + path, with_rules(minimum_rows=0))
        where = "the configuration to try: models.m.minimum_rows: 0 does not fit: "
        assert (status, answer["detail"][: len(where)]) == (422, where)
        for wrong in (b"models: {}", b"[]", b"[" * 100_000):
            assert called(url + path, wrong)[0] == 422
        assert called(url + path, b" " * (1024 * 1024 + 1))[0] == 413
        assert called(url + path, key="other")[0] == 403


def test_the_command_asks_the_service_that_runs(
    lived: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELLTALE_API_KEY", "reader")
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "telltale.yaml").write_text(f"store: {{path: {lived.config.store.path}}}\n")
    (tmp_path / "other.yaml").write_text(
        "models: {m: {windows: [1h], reference: {window: {start: 2026-01-01T00:00Z, end: 2026-01-02T00:00Z}}}}\n"
        "policies: [{name: calm, watch: drift, window: 1h, hold: 4, action: back, severity: page}]\n"
        "notifiers: {ci: {kind: webhook, url: 'https://ci.example.com/t0ken', secret_env: S}}\n"
        "actions: {back: {kind: rollback, notifier: ci}}\n"
    )
    assert b"t0ken" not in rules_to_send(tmp_path / "other.yaml")
    arguments = ["replay", "m", "--from", NOON.isoformat(), "--to", END.isoformat()]
    with listening("127.0.0.1", 0) as (listener, url), serve(lived, listener, url):
        shown = _typed(monkeypatch, capsys, *arguments, "--config", f"{tmp_path}/telltale.yaml")
        assert "inputs │ drift" in shown
        assert "2026-03-01 16:02Z to 2026-03-01 20:02Z: inputs, x" in shown
        shown = _typed(
            monkeypatch, capsys, *arguments, "-c", f"{tmp_path}/telltale.yaml", "--with", f"{tmp_path}/other.yaml"
        )
        assert "calm, x; would have asked for back" in shown
        assert "reference of the other configuration: not tried" in shown


def _typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr("sys.argv", ["telltale", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code in (0, None), shown.err
    return shown.out


def test_traffic_of_the_past_is_known_by_whole_hours() -> None:
    hours: list[datetime] = [NOON, NOON, NOON + HOUR]
    columns = {"hour": hours, "version": ["1", "2", "1"], "server": ["a", "b", "a"], "rows": [5, 6, 7]}
    traffic = HourlyTraffic(pl.DataFrame(columns))
    ahead = timedelta(minutes=2)
    assert traffic.served("e", "m", NOON - ahead, NOON + HOUR + ahead) == {"1": {"a": 5}, "2": {"b": 6}}
    assert traffic.served("e", "m", NOON + ahead, NOON + HOUR + ahead) == {}
    assert traffic.served("e", "m", NOON, NOON + 2 * HOUR) == {"1": {"a": 12}, "2": {"b": 6}}
