"""Schema changes: what is told of features that came, went or changed, and of versions under another name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction

from alerts.policy import Policy, judge
from detectors.finding import Finding, Status, Window
from monitor.ingest import Origin
from monitor.service import Service

HOUR = timedelta(hours=1)
START = NOON - 4 * HOUR
MODELS = {"m": {"features": {"x": "numeric", "c": "categorical"}, "windows": ["1h"], "minimum_rows": 100}}
Features = Callable[[int], dict[str, Any]]


def usual(number: int) -> dict[str, Any]:
    return {"x": float(number % 7), "c": "ab"[number % 2]}


def serve(
    service: Service, hour: int, features: Features = usual, version: str = "1", servers: Iterable[str] = "abc"
) -> None:
    """600 events of each server in an hour, in order of time."""
    at = START + hour * HOUR
    events = [
        prediction(
            i,
            at + i * timedelta(seconds=6),
            prediction_id=f"{hour}{server}{version}{i}",
            features=features(i),
            version=version,
            server=server,
        )
        for server in servers
        for i in range(600)
    ]
    service.take(ndjson(events), "http")


def judged(service: Service, hour: int) -> list[Finding]:
    service.clock.at = START + (hour + 2) * HOUR  # type: ignore[attr-defined]  # the tests give it a clock that can be set
    model = service.registry.get("production", "m")
    window = Window("production", "m", START + hour * HOUR, START + (hour + 1) * HOUR)
    return [f for f in service.judge.traffic(model, window, service.clock.now()) if f.detector == "schema"]


def told(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Component, feature and place of what counts."""
    return sorted(
        (f.component, f.subject.feature, f.subject.version, f.subject.server) for f in findings if f.severity >= 1
    )


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    """A model that has served for an hour, with a reference."""
    clock.at = START
    service = make_service(models=MODELS)
    table = pl.DataFrame([usual(i) for i in range(1000)])
    service.register_reference("m", table, "training")
    clock.at = START + 2 * HOUR
    serve(service, 0)
    return service


def test_nothing_is_told_of_a_model_that_stays_as_it_is(service: Service) -> None:
    serve(service, 1)
    findings = judged(service, 1)
    assert told(findings) == []
    assert {(f.subject.version, f.subject.server) for f in findings} == {("1", s) for s in ("", "a", "b", "c")}


def test_a_new_feature_is_named_with_the_version_that_brings_it(service: Service) -> None:
    serve(service, 1)
    serve(service, 1, lambda i: {**usual(i), "zip": "10115"}, "2")
    findings = judged(service, 1)
    assert told(findings) == [("undeclared", "zip", "2", "")]
    finding = next(f for f in findings if f.component)
    assert (finding.value, finding.n) == (1.0, 1800)
    assert finding.message == "new feature 'zip', which nobody declared, is in 100% of the rows"


def test_a_new_feature_of_one_server_is_tied_to_it(service: Service) -> None:
    serve(service, 1, servers="ab")
    serve(service, 1, lambda i: {**usual(i), "zip": "10115"}, servers="c")
    assert told(judged(service, 1)) == [("undeclared", "zip", "1", "c")]


def test_a_key_that_always_came_is_named_but_does_not_count(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = START
    service = make_service(models=MODELS)
    clock.at = START + 2 * HOUR
    for hour in (0, 1):
        serve(service, hour, lambda i: {**usual(i), "debug": i})
    findings = judged(service, 1)
    assert told(findings) == []
    assert [f.subject.feature for f in findings if f.component] == ["debug"]


def test_a_rare_key_does_not_count(service: Service) -> None:
    serve(service, 1, lambda i: {**usual(i), "oops": 1} if i % 200 == 7 else usual(i))
    findings = judged(service, 1)
    assert told(findings) == []
    assert [(f.subject.feature, f.value) for f in findings if f.component] == [("oops", 0.005)]


def test_names_are_known_whatever_is_sampled_and_a_replay_changes_nothing(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = START
    service = make_service(models={"m": {**MODELS["m"], "sampling": {"features": 0.01}}})
    service.register_reference("m", pl.DataFrame([usual(i) for i in range(1000)]), "training")
    events = [prediction(i, START, features={**usual(i), f"new_{i % 3}": i}) for i in range(90)]
    lines = ndjson(events).split(b"\n")
    for _ in range(2):
        service.take_batch(lines, Origin("kafka/t/0/log", "0", START, None, 89))
    kept = service.store.select("SELECT name, sum(n) AS n FROM undeclared_keys FINAL GROUP BY name ORDER BY name")
    assert kept.rows() == [("new_0", 30), ("new_1", 30), ("new_2", 30)]
    service.forget_batch(Origin("kafka/t/0/log", "0", START, None, 89))
    assert service.store.select("SELECT count() AS n FROM undeclared_keys")["n"][0] == 0


def test_shadow_traffic_changes_no_schema(service: Service) -> None:
    events = [prediction(i, START, role="shadow", features={**usual(i), "zip": 1}) for i in range(40)]
    assert service.take(ndjson(events), "http").accepted == 40
    assert service.store.select("SELECT count() AS n FROM undeclared_keys")["n"][0] == 0


def test_ids_for_names_do_not_fill_the_store(service: Service) -> None:
    events = [prediction(i, START, features={**usual(i), f"id_{i}": 1, "zip": 1}) for i in range(500)]
    service.take(ndjson(events), "http")
    kept = service.store.select("SELECT name, sum(n) AS n FROM undeclared_keys FINAL GROUP BY name")
    counts = dict(kept.iter_rows())
    assert len(counts) == 101
    assert (counts["zip"], counts[""], sum(counts.values())) == (500, 401, 1000)


def test_the_auditor_misses_names_that_are_gone(service: Service) -> None:
    serve(service, 1, lambda i: {**usual(i), "zip": 1}, servers="a")
    assert service.audit(START, START + 2 * HOUR, repair=False)["disagreements"] == []
    service.store.execute("DELETE FROM undeclared_keys WHERE server = 'a'")
    found = service.audit(START, START + 2 * HOUR, repair=False)["disagreements"]
    assert [(d["what"], d["expected"], d["found"]) for d in found] == [("undeclared keys", 600, 0)]


def test_a_feature_that_vanishes_is_named(service: Service) -> None:
    serve(service, 1, lambda i: {"x": float(i % 7)})
    findings = judged(service, 1)
    assert told(findings) == [("vanished", "c", "1", "")]
    assert next(f for f in findings if f.component).message == "feature 'c' is missing in all rows, none before"


def test_a_feature_that_vanishes_on_one_server_is_tied_to_it(service: Service) -> None:
    serve(service, 1, servers="ab")
    serve(service, 1, lambda i: {"x": float(i % 7)}, servers="c")
    assert told(judged(service, 1)) == [("vanished", "c", "1", "c")]


def test_a_renamed_feature_is_two_changes(service: Service) -> None:
    serve(service, 1, lambda i: {"x_new": float(i % 7), "c": "a"})
    assert told(judged(service, 1)) == [("undeclared", "x_new", "1", ""), ("vanished", "x", "1", "")]


def test_a_feature_that_still_comes_now_and_then_has_not_vanished(service: Service) -> None:
    serve(service, 1, lambda i: usual(i) if i == 300 else {"x": float(i % 7)})
    assert told(judged(service, 1)) == []


def test_a_feature_of_another_kind_is_named(service: Service) -> None:
    serve(service, 1, lambda i: {**usual(i), "x": "high"}, "2")
    serve(service, 1)
    assert told(judged(service, 1)) == [("kind", "x", "2", "")]


def test_without_a_reference_the_day_before_tells(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = START + HOUR
    service = make_service(models=MODELS)
    serve(service, 0)
    service.references.layout_from_rows(service.registry.get("production", "m"), clock.at)
    serve(service, 1, lambda _: {"x": "high"})
    findings = judged(service, 1)
    assert told(findings) == [("kind", "x", "1", ""), ("vanished", "c", "1", "")]
    assert {f.baseline for f in findings if f.component} == {"day before"}


def test_few_rows_tell_nothing(service: Service) -> None:
    events = [prediction(i, START + HOUR, features={}, server="a") for i in range(99)]
    service.take(ndjson(events), "http")
    assert {f.status for f in judged(service, 1)} == {Status.NOT_ENOUGH_DATA}


def release(service: Service, version: str) -> None:
    event = {"type": "release", "model": "m", "version": version, "action": "deploy", "timestamp": START.timestamp()}
    service.take(ndjson([event]), "http")


def test_a_version_under_another_name_is_told(service: Service) -> None:
    release(service, "1")
    serve(service, 1, version="2024-05")
    findings = judged(service, 1)
    assert told(findings) == [("renamed", "", "2024-05", "")]
    renamed = next(f for f in findings if f.component)
    assert renamed.message == "version 2024-05 took over all traffic of version 1 on a, b, c, and nobody announced it"


def test_a_version_under_another_name_on_one_server_is_tied_to_it(service: Service) -> None:
    release(service, "1")
    serve(service, 1, servers="ab")
    serve(service, 1, version="2", servers="c")
    assert told(judged(service, 1)) == [("renamed", "", "2", "c")]


def test_where_nobody_announces_anything_a_new_version_is_no_alarm(service: Service) -> None:
    serve(service, 1, version="2")
    findings = judged(service, 1)
    assert told(findings) == []
    assert [f.component for f in findings if f.component] == ["renamed"]


def test_a_version_that_is_announced_or_joins_the_old_one_is_no_rename(service: Service) -> None:
    release(service, "1")
    serve(service, 1, version="2")
    release(service, "2")
    findings = judged(service, 1)
    assert [f.component for f in findings if f.component] == []
    assert [(f.subject.version, f.severity) for f in findings if f.baseline == "version:1"] == [("2", 0.0)], (
        "all is well"
    )
    serve(service, 1)
    assert [f.component for f in judged(service, 1) if f.component] == []


def test_a_policy_tells_what_was_seen_and_clears_it(service: Service) -> None:
    policy = Policy("schema", "schema", hold=1)
    serve(service, 1, lambda i: {"x": float(i % 7)}, servers="c")
    serve(service, 1, servers="ab")
    verdicts = {(v.version, v.server): v for v in judge(policy, judged(service, 1), alpha=0.0)}
    assert verdicts["1", "c"].state == "drifted"
    assert (verdicts["1", "c"].features, verdicts["1", "c"].value) == (("c",), 1.0)
    assert verdicts["1", "c"].reason == "feature 'c' is missing in all rows, none before"
    assert {v.state for place, v in verdicts.items() if place != ("1", "c")} == {"ok"}
    serve(service, 2)
    assert {v.state for v in judge(policy, judged(service, 2), alpha=0.0)} == {"ok"}


def test_a_feature_that_was_declared_too_late_is_said_not_to_be_compared(make_service: ServiceMaker) -> None:
    service = make_service(models=MODELS)
    rows = [usual(i) for i in range(1_000)]
    service.register_reference("m", pl.DataFrame(rows), "training")
    serve(service, 0)
    model = service.registry.get("production", "m")
    later = model.spec.model_copy(update={"features": {**model.spec.features, "z": model.spec.features["x"]}})
    window = Window("production", "m", START, START + HOUR)
    for spec, wanted in ((model.spec, []), (later, ["z"])):
        findings = service.judge.traffic(replace(model, spec=spec), window, START + 2 * HOUR)
        late = [f for f in findings if f.component == "no cells"]
        assert [f.subject.feature for f in late] == wanted
        assert all(f.severity == 0 and "not compared" in f.message for f in late)
