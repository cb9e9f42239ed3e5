"""Grafana's dashboards: every query answers with rows, none breaks on a name, and all of it is well formed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import polars as pl
import pytest
from given import NOON, StillClock, ndjson, prediction
from grafana import as_run
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.grafana import as_file, build
from dashboards.grafana.overview import OVERVIEW_UID
from dashboards.grafana.panels import DATASOURCE, SCHEMA_VERSION, TAG, WIDTH, literal, uid
from monitor.config import Config
from monitor.service import Service
from monitor.store import Store

HOSTILE = "it's \\ \"$version\" [[server]] {scope} ${feature} -- ' OR 1=1 $__timeFilter(x)"
FEATURES = {HOSTILE: "numeric", "c": "categorical"}
SPEC = {
    "windows": ["1h"],
    "label_delay": "0s",
    "routing": "random",
    "features": FEATURES,
    "segments": {"plan": ["vip"], HOSTILE: ["a"]},
}
PLACES = (("production", "m"), ("production", HOSTILE), ("staging", "m"))
LATE = ("production", "late")
"""Its labels take a day to come, and its traffic ended a day ago."""
DAY = timedelta(days=1)
FLEET = ("", "")
END = NOON + timedelta(minutes=30)


def traffic(environment: str, model: str, end: datetime) -> list[dict[str, Any]]:
    """An hour of four servers, two of which went back to version 1; each request stands for two. A shadow listens in.

    Half of what the other servers get lacks its first feature.
    """
    events = []
    for i in range(1200):
        at = end - timedelta(seconds=3 * i + 60)
        version = HOSTILE if i % 2 or i >= 1100 else "1"
        value = None if i % 4 == 1 else float(i % 50)
        named = {"plan": "vip", HOSTILE: "a"} if i % 3 == 0 else {}
        more = {"status": "error"} if i % 40 == 0 else {"prediction": "yes"}
        features = {HOSTILE: value, "c": "ab"[i % 2]}
        where = {"environment": environment, "model": model, "version": version, "server": f"pod-{i % 4}"}
        events.append(prediction(i, at, **where, features=features, segments=named, sampling_fraction=0.5, **more))
    shadows = {"environment": environment, "model": model, "version": "shadow", "server": "dark", "role": "shadow"}
    return [*events, *(prediction(i, end - timedelta(minutes=9), **shadows) for i in range(5000, 5100))]


def labels(environment: str, model: str, end: datetime) -> list[dict[str, Any]]:
    """The truth about all of them, wrong for one in seven."""
    return [
        {
            "type": "label",
            "environment": environment,
            "model": model,
            "prediction_id": f"p{i}",
            "label": "no" if i % 7 == 0 else "yes",
            "timestamp": end.timestamp() - 3 * i - 60,
        }
        for i in range(1200)
    ]


def happenings(environment: str, model: str, end: datetime) -> list[dict[str, Any]]:
    """A release, and health checks."""
    at = end.timestamp() - 600
    release = {"type": "release", "model": model, "version": HOSTILE, "action": "deploy", "by": "a", "reason": HOSTILE}
    checks = [
        {
            "type": "health",
            "environment": environment,
            "server": f"pod-{i}",
            "timestamp": at,
            "ok": i > 0,
            "latency_ms": i,
        }
        for i in range(4)
    ]
    return [{**release, "environment": environment, "timestamp": at}, *checks]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Models with all that there is to show: traffic, labels, findings, releases, health checks and dead letters."""
    store = {"path": tmp_path_factory.mktemp("grafana") / "data"}
    config = Config.model_validate(
        {"store": store, "models": {"m": SPEC, HOSTILE: SPEC, "late": {**SPEC, "label_delay": "1d"}}}
    )
    table = pl.DataFrame({HOSTILE: [float(i % 50) for i in range(3000)], "c": ["a", "b"] * 1500})
    with Service(config, StillClock()) as service:
        service.store.execute("SYSTEM STOP MERGES")  # rows that are there twice stay there twice
        for environment, model in (*PLACES, LATE):
            end = NOON - DAY if model == "late" else NOON
            service.register_reference(model, table, "train.parquet", environment=environment)
            for events in (traffic, traffic, labels, labels, happenings, happenings):  # as after a time-out
                service.take(ndjson(events(environment, model, end)), "http")
            service.evaluate(model, end, environment)
        service.evaluate("late", NOON)
        check = {"type": "health", "environment": "silent", "server": "pod-9", "ok": True, "latency_ms": 1}
        service.take(ndjson([{**check, "timestamp": (NOON - 2 * DAY).timestamp()}]), "http")
        service.take(b"{}\nrubbish", "http")
        yield service
        service.store.execute("SYSTEM START MERGES")


def time_shown(dashboard: Mapping[str, Any]) -> timedelta:
    """The time that a dashboard shows when it is opened."""
    assert dashboard["time"]["to"] == "now"
    return timedelta(hours=int(dashboard["time"]["from"].removeprefix("now-").removesuffix("h")))


def rows(
    store: Store,
    sql: str,
    chosen: Mapping[str, list[str]],
    time: timedelta = DAY,
    end: datetime = END,
    every: timedelta = timedelta(minutes=1),
) -> pl.DataFrame:
    return store.select(as_run(sql, chosen, end - time, end, every))


def choices(store: Store, dashboard: Mapping[str, Any], end: datetime = END) -> dict[str, list[str]]:
    """What the dashboard's variables hold when it is opened."""
    chosen: dict[str, list[str]] = {}
    for variable in dashboard["templating"]["list"]:
        found = rows(store, variable["query"]["rawSql"], chosen, time_shown(dashboard), end)
        assert found.height, f"{dashboard['title']}: the variable {variable['name']} has no values"
        values = found.to_series(0).to_list()
        chosen[variable["name"]] = values if variable["multi"] else values[:1]
    return chosen


def queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What every panel and the marks ask for."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target
    for mark in dashboard["annotations"]["list"]:
        if "target" in mark:
            yield mark["name"], mark["target"]


def test_every_query_gives_rows(service: Service) -> None:
    empty = []
    for dashboard in build(service.models()):
        chosen = choices(service.store, dashboard)
        for title, target in queries(dashboard):
            if rows(service.store, target["rawSql"], chosen, time_shown(dashboard)).is_empty():
                empty.append(f"{dashboard['title']}: {title}, query {target['refId']}")
    assert empty == []


def test_time_series_have_sorted_times_texts_that_name_lines_and_numbers(service: Service) -> None:
    for dashboard in build(service.models()):
        chosen = choices(service.store, dashboard)
        for title, target in queries(dashboard):
            if target["format"] == 0:
                found = rows(service.store, target["rawSql"], chosen, time_shown(dashboard))
                assert found.columns[:2] == ["time", "series"], title
                assert found["time"].is_sorted(), title
                assert found.select("time", "series").is_unique().all(), title
                assert all(t.is_numeric() for t in found.dtypes[2:]), title


def dashboard_of(service: Service, place: tuple[str, str]) -> dict[str, Any]:
    """The dashboard of a model, or of the fleet where the place is empty."""
    wanted = uid(*place) if place[1] else OVERVIEW_UID
    return next(d for d in build(service.models()) if d["uid"] == wanted)


def shown(
    service: Service,
    title: str,
    place: tuple[str, str] = PLACES[1],
    ref: str = "A",
    end: datetime = END,
    every: timedelta = timedelta(minutes=1),
    **chosen: list[str],
) -> pl.DataFrame:
    """The rows of a panel over the time that its dashboard shows at first, with some of the choices made."""
    dashboard = dashboard_of(service, place)
    sql = next(t["rawSql"] for name, t in queries(dashboard) if (name, t["refId"]) == (title, ref))
    choice = {**choices(service.store, dashboard, end), **{k: list(map(coded, v)) for k, v in chosen.items()}}
    return rows(service.store, sql, choice, time_shown(dashboard), end, every)


def coded(value: str) -> str:
    """A value as the variables hold it."""
    return value.encode().hex().upper()


def test_the_overview_shows_each_model_and_leads_to_its_dashboard(service: Service) -> None:
    table = shown(service, "Models", FLEET)
    found = {(r["Environment"], r["Model"]): r for r in table.iter_rows(named=True)}
    assert set(found) == set(PLACES)
    for place, row in found.items():
        assert row["Dashboard"] == uid(*place)
        assert (row["Requests"], row["Servers"], row["Latency p95"]) == (2400, 4, 5.0)
        assert row["Share of errors"] == pytest.approx(1 / 40)
        assert row["Largest change"] > 1


def test_the_fleet_is_counted_whole_without_shadows_and_without_what_came_twice(service: Service) -> None:
    assert shown(service, "In this time", FLEET).rows() == [(7200.0, pytest.approx(1 / 40), 6, 4)]
    found = shown(service, "Requests per minute, by environment", FLEET)
    assert dict(found.group_by("series").agg(pl.col("requests").sum()).iter_rows()) == {
        "production": 4800.0,
        "staging": 2400.0,
    }
    assert shown(service, "Labels per minute, by model", FLEET)["labels"].sum() == 3600


def test_lines_that_could_not_be_taken_in_are_counted_per_minute(service: Service) -> None:
    for minutes in (1, 10):
        every = timedelta(minutes=minutes)
        found = shown(service, "Lines per minute that could not be taken in", FLEET, every=every)
        assert found["lines"].sum() == pytest.approx(2 / minutes)


def test_servers_and_models_of_the_same_name_in_two_environments_are_told_apart(service: Service) -> None:
    failures = shown(service, "Failed health checks, by server", FLEET)
    assert dict(failures.select("series", "failures").iter_rows()) == {
        f"{e} pod-{i}": float(i == 0) for e in ("production", "staging") for i in range(4)
    }
    in_one = shown(service, "Failed health checks, by server", FLEET, environment=["staging"])
    assert set(in_one["series"]) == {f"pod-{i}" for i in range(4)}
    latency = shown(service, "Latency of health checks, by server", FLEET)
    assert set(latency["series"]) == set(failures["series"])
    assert set(shown(service, "Latency, by model", FLEET)["series"]) == {f"{e} {m}" for e, m in PLACES}
    assert set(shown(service, "Latency, by model", FLEET, environment=["staging"])["series"]) == {"m"}


def test_every_table_is_read_without_what_came_twice() -> None:
    tables = "dead_letters|features|findings|health|labels|predictions|profile_batches|releases|schemas"
    for path in files("dashboards.grafana").joinpath("queries").iterdir():
        sql = path.read_text("utf-8")
        for table, final in re.findall(rf"FROM ({tables})\b( FINAL)?", sql):
            once = "DISTINCT" in sql or path.name == "served.sql"  # the latest minute of twice the same is the same
            assert final or once, f"{path.name}: {table} needs FINAL"


def test_a_change_is_shown_with_what_broke_first(service: Service) -> None:
    first = shown(service, "What differs by more than its tolerance").row(0, named=True)
    assert (first["Model"], first["Feature"], first["Change"]) == (HOSTILE, HOSTILE, "missing")
    assert first["Severity"] > 1


def test_requests_are_counted_by_version_server_and_segment(service: Service) -> None:
    by_version = shown(service, "Requests per minute, by version")
    assert by_version.group_by("series").agg(pl.col("requests").sum()).sort("series").rows() == [
        ("1", 1100.0),
        (HOSTILE, 1300.0),
    ]
    assert shown(service, "Requests per minute, by server")["requests"].sum() == 2400
    by_segment = shown(service, "Requests per minute, by plan")
    assert (set(by_segment["series"]), by_segment["requests"].sum()) == ({"plan=vip"}, 800)


def test_missing_values_drift_accuracy_and_latency_are_what_the_data_hold(service: Service) -> None:
    missing = shown(service, "Missing or unusable values, by feature")
    of_feature = missing.filter(pl.col("series") == HOSTILE)
    assert of_feature["missing"].mean() == pytest.approx(1 / 4, abs=0.01)
    assert missing.filter(pl.col("series") == "c")["missing"].max() == 0
    drift = dict(shown(service, "Drift, by feature").select("series", "drift").iter_rows())
    assert drift[HOSTILE] > 1 > drift["c"]
    accuracy = shown(service, "Accuracy, by version")
    interval = shown(service, "Accuracy, by version", ref="B")
    assert accuracy["accuracy"].to_list() == pytest.approx([6 / 7] * 2, abs=0.02)
    assert all(row["low"] < 6 / 7 < row["high"] for row in interval.iter_rows(named=True))
    assert shown(service, "Latency, by version").select("p50", "p95").unique().rows() == [(5.0, 5.0)]


def test_a_choice_narrows_the_panels(service: Service) -> None:
    assert set(shown(service, "Requests per minute, by version", version=[HOSTILE])["series"]) == {HOSTILE}
    assert shown(service, "Requests per minute, by version", version=[]).is_empty()


def test_a_server_serves_the_version_that_it_showed_last(service: Service) -> None:
    ever = shown(service, "Versions on servers")
    found = {(r["Server"], r["Version"]): r["Serves"] for r in ever.iter_rows(named=True)}
    assert found[("pod-0", HOSTILE)] == "no"
    serving = {place for place, serves in found.items() if serves == "yes"}
    assert serving == {("pod-0", "1"), ("pod-1", HOSTILE), ("pod-2", "1"), ("pod-3", HOSTILE)}
    now = shown(service, "Which version serves on which server", FLEET)
    assert set(now.filter(pl.col("Model") == HOSTILE).select("Server", "Version").iter_rows()) == serving


def test_choosing_a_version_does_not_change_whether_it_serves(service: Service) -> None:
    for version in ("1", HOSTILE):
        everything = shown(service, "Versions on servers", end=NOON).filter(pl.col("Version") == version)
        assert everything["Serves"].n_unique() == (2 if version == HOSTILE else 1)
        assert shown(service, "Versions on servers", end=NOON, version=[version]).rows() == everything.rows()


def test_a_server_that_went_silent_serves_nothing(service: Service) -> None:
    later = NOON + timedelta(hours=2)
    assert set(shown(service, "Versions on servers", end=later)["Serves"]) == {"no"}
    assert shown(service, "Which version serves on which server", FLEET, end=later).is_empty()


def test_accuracy_is_shown_at_first_however_late_the_labels_come(service: Service) -> None:
    assert time_shown(dashboard_of(service, LATE)) == DAY + DAY + timedelta(hours=1)
    for title, ref in (
        ("Accuracy, by version", "A"),
        ("Accuracy, by version", "B"),
        ("Label coverage, by version", "A"),
    ):
        found = shown(service, title, LATE, ref)
        assert set(found["series"]) == {"1", HOSTILE}
        assert set(found["time"].dt.replace_time_zone("UTC")) == {NOON - DAY}


def test_everything_can_still_be_chosen_when_there_is_no_traffic_any_more(service: Service) -> None:
    later = NOON + 30 * DAY
    fleet, model = dashboard_of(service, FLEET), dashboard_of(service, PLACES[1])
    chosen = {
        variable["name"]: rows(service.store, variable["query"]["rawSql"], {}, DAY, later)["text"].to_list()
        for variable in (*fleet["templating"]["list"], *model["templating"]["list"])
    }
    assert chosen["environment"] == ["production", "silent", "staging"]
    assert chosen["version"] == sorted(["1", HOSTILE])
    assert chosen["server"] == [f"pod-{i}" for i in range(4)]


def test_where_nothing_is_known_no_number_is_shown(service: Service) -> None:
    assert shown(service, "In this time", FLEET, environment=["nowhere"]).rows() == [(0.0, None, 0, 0)]
    before_its_window = NOON - DAY - timedelta(minutes=5)
    unjudged = shown(service, "Models", FLEET, end=before_its_window).row(0, named=True)
    assert unjudged["Model"] == "late"
    assert unjudged["Requests"] > 0
    assert unjudged["Largest change"] is None


def test_the_same_models_give_the_same_bytes_in_any_order(service: Service) -> None:
    models = service.models()
    assert [as_file(d) for d in build(models)] == [as_file(d) for d in build(reversed(models))]


def test_panels_follow_what_is_known_of_the_model() -> None:
    def titles(**more: Any) -> set[str]:
        model = {"environment": "production", "model": "m", "task": "classification", "features": {}, "segments": []}
        return {p["title"] for p in build([{**model, **more}])[1]["panels"]}

    bare, full = titles(), titles(task="regression", features={"x": "numeric"}, segments=["plan"])
    assert bare - full == {"Accuracy, by version"}
    assert full - bare == {
        "Mean absolute error, by version",
        "Movement of numbers, by feature",
        "Missing or unusable values, by feature",
        "Requests per minute, by plan",
    }


def faults(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """Where a dashboard breaks the rules of Grafana's Classic model."""
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", dashboard["uid"])
    if (dashboard["id"], dashboard["schemaVersion"], dashboard["tags"]) != (None, SCHEMA_VERSION, [TAG]):
        yield "id, schema version or tags"
    if not 0 < len(dashboard["title"]) <= 189 or "version" in dashboard:
        yield "title or version"
    panels = dashboard["panels"]
    if [p["id"] for p in panels] != list(range(1, len(panels) + 1)):
        yield "panel ids"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if taken & cells or not cells or any(not 0 <= x < WIDTH or y < 0 for x, y in cells):
            yield f"{panel['title']}: overlaps or is out of bounds"
        taken |= cells
        refs = [t["refId"] for t in panel.get("targets", ())]
        if len(set(refs)) != len(refs) or (panel["type"] != "row" and not (refs and panel["description"])):
            yield f"{panel['title']}: queries or description"
        if any(t["datasource"] != DATASOURCE for t in panel.get("targets", ())):
            yield f"{panel['title']}: data source"
    for sql in (t["rawSql"] for _, t in queries(dashboard)):
        if re.search(r"\{(?!\w+:singlequote\})|SETTINGS|;", sql.replace("\\x", "")):
            yield f"not filled in, or not for a reader: {sql}"


def test_dashboards_are_well_formed(service: Service) -> None:
    made = build(service.models(), "https://telltale.example/")
    assert [f for d in made for f in faults(d)] == []
    assert len({d["uid"] for d in made}) == len(made) == 1 + len((*PLACES, LATE))
    for dashboard in made:
        assert json.loads(as_file(dashboard)) == dashboard
        assert [link.get("url") for link in dashboard["links"]] == ["", "https://telltale.example/"]
    assert [len(d["links"]) for d in build(service.models())] == [1] * len(made)


@settings(max_examples=150, deadline=None)
@given(name=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("'\\`\"$[]{}-/*;\\0\\n"))))
def test_a_literal_means_the_name_whatever_it_is(service: Service, name: str) -> None:
    named = {variable: ["41"] for variable in ("environment", "version", "x")}
    assert rows(service.store, f"SELECT hex({literal(name)}) AS name", named)["name"][0] == name.encode().hex().upper()


@settings(max_examples=15, deadline=None)
@given(name=st.text(st.sampled_from("a'\\`\"$[]{}()-/*;: \\n"), min_size=1))
def test_no_name_of_a_model_or_segment_breaks_a_query_or_shows_another_models_rows(service: Service, name: str) -> None:
    model = {
        "environment": name,
        "model": name,
        "task": "regression",
        "features": {name: "numeric"},
        "segments": [name],
    }
    everything = {v["name"]: ["6D"] for v in build([model])[1]["templating"]["list"]}
    for title, target in queries(build([model])[1]):
        found = rows(service.store, target["rawSql"], everything)
        assert found.is_empty() or title == "In this time", title
