"""Scenarios: rules tried on made-up traffic, and what is said of a wrong file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.cli import main
from monitor.config import ConfigError
from monitor.scenarios import Scenario, load_scenario
from monitor.scenarios.traffic import events_between, reference_table

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "scenarios" / "upstream-breaks.yaml"
HOUR = timedelta(hours=1)
TRAFFIC: dict[str, Any] = {
    "rows_per_hour": 400,
    "servers": ["a", "b"],
    "versions": {"1": 0.5, "2": 0.5},
    "segments": {"plan": {"vip": 0.5, "free": 0.5}},
    "features": {"x": {"mean": 10, "sd": 1, "missing": 0.1}, "c": {"levels": {"red": 0.5, "blue": 0.5}}},
    "accuracy": 1.0,
    "labels_after": "30m",
    "latency_ms": 20,
}
SECTIONS: dict[str, Any] = {
    "models": {"m": {"windows": ["1h"], "segments": {"plan": ["vip", "free"]}, "monitors": ["drift"]}},
    "policies": [{"name": "inputs", "watch": "drift", "hold": 1}],
    "lasts": "2h",
    "traffic": TRAFFIC,
    "expect": [{"policy": "inputs", "never": True}],
}


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(SECTIONS | sections))
    return path


def scenario(folder: Path, **sections: Any) -> Scenario:
    return load_scenario(written(folder, **sections))


def predictions(told: Scenario, hour: int = 0) -> list[dict[str, Any]]:
    events = events_between(told, hour * HOUR, (hour + 1) * HOUR)
    return [event for _, event in events if event["type"] == "prediction"]


def values(events: Sequence[dict[str, Any]], feature: str) -> list[Any]:
    return [e["features"].get(feature) for e in events]


def outcome_of(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    monkeypatch.setattr("sys.argv", ["telltale", "test", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_the_example_comes_true(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = outcome_of(EXAMPLE, monkeypatch, capsys)
    assert code == 0
    assert "pass one-bad-server fires between 3h00 and 4h00 with distance on server pod-3: at 4h00 (distance" in shown
    assert [line[:4] for line in shown.splitlines()] == ["pass"] * 4


def test_what_did_not_come_true_is_said_with_what_happened_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path,
        policies=[
            {"name": "inputs", "watch": "drift", "hold": 1},
            {"name": "worse", "watch": "accuracy_drop"},
            {"name": "again", "watch": "drift", "hold": 1, "severity": "page"},
        ],
        changes=[{"from": "1h", "feature": "x", "shift": 2}],
        expect=[
            {"policy": "inputs", "fires": {"from": "0h", "until": "1h"}},
            {"policy": "inputs", "never": True},
            {"policy": "worse", "fires": {"from": "0h", "until": "2h"}, "version": "2", "server": ""},
        ],
    )
    code, shown, _ = outcome_of(path, monkeypatch, capsys)
    none = "0 drifted, 0 ok, 0 unsure, 0 error"
    assert (code, shown.splitlines()) == (
        1,
        [
            "FAIL inputs fires between 0h00 and 1h00; instead it fired at 2h00 (x)",
            "FAIL inputs never fires; it fired at 2h00 (x)",
            f"FAIL worse fires between 0h00 and 2h00 on version 2 on all servers; it never fired: of 0 windows {none}",
            "also again fired at 2h00 (x)",
        ],
    )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"traffik": {}}, "traffik: 'traffik' is not a key of the file; did you mean 'traffic'?"),
        ({"lasts": "soon"}, "lasts: 'soon' is not a duration"),
        ({"model": "n"}, "model: 'n' is not a model; known: m"),
        ({"models": {"m": {}, "n": {}}}, "model: 2 models are declared; name the one that is meant"),
        ({"models": {"m": {"features": {"y": "numeric"}}}}, "traffic.features: 'x' is not a feature of the model"),
        ({"models": {"m": {"features": {"x": "categorical"}}}}, "features.x: the model says that it is categorical"),
        ({"changes": [{"form": "1h"}]}, "changes[0].form: 'form' is not a key of changes[0]; did you mean 'from'?"),
        ({"changes": [{"from": "1h"}]}, "changes[0]: says nothing is changed; name one of shift, scale, missing"),
        ({"changes": [{"shift": 1}]}, "changes[0]: shift needs a feature"),
        ({"changes": [{"feature": "z", "shift": 1}]}, "changes[0].feature: 'z' is not a feature; known: c, x"),
        ({"changes": [{"feature": "c", "shift": 1}]}, "changes[0].shift: 'c' has levels"),
        ({"changes": [{"feature": "x", "level": "red"}]}, "changes[0].level: 'x' has numbers"),
        ({"changes": [{"rows": 0, "server": "bb"}]}, "changes[0].server: 'bb' is not a server; did you mean 'b'?"),
        (
            {"changes": [{"rows": 0, "segment": "plan=gold"}]},
            "'plan=gold' is not a segment; known: plan=free, plan=vip",
        ),
        ({"changes": [{"label_error": 1}]}, "changes[0].label_error: is not for classification"),
        ({"changes": [{"from": "2h", "until": "1h", "errors": 1}]}, "changes[0]: until must be after from"),
        ({"expect": [{"policy": "input", "never": True}]}, "'input' is not a policy; did you mean 'inputs'?"),
        ({"expect": [{"policy": "inputs"}]}, "expect[0]: needs either fires: {from, until} or never: true"),
        ({"expect": [{"policy": "inputs", "fires": {"from": "1h"}}]}, "expect[0].fires.until: is missing; add it"),
        ({"expect": [{"policy": "inputs", "fires": {"from": "3h", "until": "4h"}}]}, "the scenario is over by then"),
        ({"traffic": TRAFFIC | {"versions": {"1": 0.4}}}, "traffic.versions: the shares add up to 0.4; make it 1"),
        ({"traffic": TRAFFIC | {"features": {"x": {"mean": 1}}}}, "traffic.features.x: needs either mean and sd, or"),
        ({"traffic": TRAFFIC | {"rows_per_hour": 10**7}}, "lasts: that is more than 2,000,000 rows"),
        ({"traffic": TRAFFIC | {"servers": ["a", "a"]}}, "traffic.servers: 'a' is there twice"),
        ({"traffic": TRAFFIC | {"servers": [""]}}, "traffic.servers[0]: '' does not fit"),
        ({"traffic": TRAFFIC | {"features": {"x": {"mean": float("nan"), "sd": 1}}}}, "features.x.mean: nan does not"),
        ({"changes": [{"feature": "x", "shift": float("inf")}]}, "changes[0].shift: inf does not fit"),
        ({"changes": [{"feature": "x", "shift": 1, "share": 0.5}]}, "share is for level and stuck, not for shift"),
        ({"changes": [{"from": "2h", "errors": 1}]}, "changes[0].from: the scenario is over by then"),
        ({"expect": [{"policy": "inputs", "never": True, "features": ["y"]}]}, "expect[0].features: 'y' is not a fea"),
        ({"start": "1900-01-01T00:00Z"}, "start: must be from 1970 to 2199"),
        ({"reference_rows": 10**10}, "reference_rows: 10000000000 does not fit"),
        ({"config": str(ROOT / "telltale.yaml")}, "models: is also in the file that config names"),
    ],
)
def test_a_wrong_file_is_told_by_its_place_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sections: dict[str, Any],
    message: str,
) -> None:
    path = written(tmp_path, **sections)
    code, _, said = outcome_of(path, monkeypatch, capsys)
    assert code == 2
    assert said.startswith(f"telltale: {path}: ")
    assert message in said


def test_what_nobody_could_judge_is_not_taken_for_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, traffic=TRAFFIC | {"rows_per_hour": 50})
    code, shown, _ = outcome_of(path, monkeypatch, capsys)
    assert code == 1
    assert shown.splitlines() == [
        "FAIL inputs never fires; it could not have: of 2 windows 0 drifted, 0 ok, 2 unsure, 0 error"
    ]


def test_traffic_that_is_refused_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, traffic=TRAFFIC | {"servers": ["a" * 2**20], "rows_per_hour": 2})
    code, _, said = outcome_of(path, monkeypatch, capsys)
    assert code == 2
    assert "traffic: its events are not taken in: " in said


def test_rules_can_be_those_of_a_configuration_file(tmp_path: Path) -> None:
    features = {name: {"mean": 1, "sd": 1} for name in ("income", "age", "tenure")}
    region = {"levels": {"north": 0.5, "south": 0.5}}
    path = tmp_path / "scenario.yaml"
    sections = {
        "config": str(ROOT / "telltale.yaml"),
        "lasts": "1h",
        "traffic": {"rows_per_hour": 10, "features": {**features, "region": region}},
        "expect": [{"policy": "inputs-drift", "never": True}],
    }
    path.write_text(yaml.safe_dump(sections))
    told = load_scenario(path)
    assert (told.name, told.spec.routing, told.policies[0].name) == ("loans", "random", "inputs-drift")
    path.write_text(yaml.safe_dump(sections | {"config": "none.yaml"}))
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_scenario(path)


def test_the_same_seed_gives_the_same_traffic(tmp_path: Path) -> None:
    told = scenario(tmp_path)
    assert predictions(told) == predictions(told)
    assert predictions(told) != predictions(scenario(tmp_path, seed=2))
    assert predictions(told, 1)[0]["prediction_id"] == "row-400"
    assert reference_table(told).equals(reference_table(told))
    changed = scenario(tmp_path, changes=[{"feature": "x", "shift": 5, "server": "a"}])
    others = [(old, new) for old, new in zip(predictions(told), predictions(changed), strict=True) if old != new]
    assert {new["server"] for _, new in others} == {"a"}


def test_changes_are_where_and_when_they_should_be(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"from": "30m", "until": "60m", "feature": "x", "shift": 100, "server": "a"},
        {"feature": "x", "stuck": -5, "version": "2", "server": "b"},
        {"feature": "c", "level": "green", "segment": "plan=vip"},
        {"from": "1h", "feature": "x", "missing": 1.0, "version": "1"},
        {"from": "1h", "rows": 0.0, "server": "a"},
        {"from": "1h", "errors": 1.0},
        {"from": "1h", "latency_ms": 2000},
    ]
    told = scenario(tmp_path, changes=changes)
    start = told.start.timestamp()
    first, second = predictions(told, 0), predictions(told, 1)
    for event in first:
        x = event["features"].get("x", 10.0)
        if event["server"] == "a":
            assert (x > 50) == (event["timestamp"] - start >= 1800 and "x" in event["features"])
        elif event["version"] == "2":
            assert x == -5
        assert (event["features"].get("c") == "green") == (event["segments"]["plan"] == "vip")
    assert {e["server"] for e in second} == {"b"}
    assert {e["status"] for e in first} == {"ok"}
    assert {e["status"] for e in second} == {"error"}
    assert min(e["latency_ms"] for e in second) > max(e["latency_ms"] for e in first)
    assert {e["features"].get("x") for e in second if e["version"] == "1"} == {None}


def test_labels_come_later_and_are_as_right_as_they_should_be(tmp_path: Path) -> None:
    told = scenario(tmp_path, changes=[{"accuracy": 0.0, "version": "2"}])
    events = {e["prediction_id"]: e for e in predictions(told)}
    labels = [(at, e) for at, e in events_between(told, 0 * HOUR, HOUR) if e["type"] == "label"]
    assert len(labels) == 400
    for at, label in labels:
        event = events[label["prediction_id"]]
        assert (label["label"] == event["prediction"]) == (event["version"] == "1")
        assert told.start.timestamp() + at.total_seconds() == pytest.approx(event["timestamp"] + 1800)


def test_a_regression_has_errors_of_a_size(tmp_path: Path) -> None:
    traffic = {name: value for name, value in TRAFFIC.items() if name != "accuracy"} | {"label_error": 0.0}
    models = {"m": {**SECTIONS["models"]["m"], "task": "regression"}}
    told = scenario(tmp_path, models=models, traffic=traffic, changes=[{"label_error": 9, "version": "2"}])
    events = {e["prediction_id"]: e for e in predictions(told)}
    errors: dict[str, list[float]] = {"1": [], "2": []}
    for _, label in events_between(told, 0 * HOUR, HOUR):
        if label["type"] == "label":
            event = events[label["prediction_id"]]
            errors[event["version"]].append(abs(label["label"] - event["prediction"]))
    assert max(errors["1"]) == 0.0
    assert sum(errors["2"]) / len(errors["2"]) > 4
