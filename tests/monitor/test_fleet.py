"""The map of versions and servers: who served, who serves, and what nobody announced."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from given import NOON, ServiceMaker, ndjson, prediction

MINUTE = timedelta(minutes=1)


def served(version: str, server: str, start: datetime, minutes: int) -> list[dict[str, Any]]:
    return [
        prediction(i, start + i * MINUTE, prediction_id=f"{version}{server}{start}{i}", version=version, server=server)
        for i in range(minutes)
    ]


def test_versions_follow_each_other_and_serve_side_by_side(make_service: ServiceMaker) -> None:
    service = make_service()
    start = NOON - 40 * MINUTE
    events = [
        *served("1", "switched", start, 20),
        *served("2", "switched", start + 20 * MINUTE, 20),
        *served("1", "both", start, 40),
        *served("2", "both", start + 10 * MINUTE, 30),
        *served("1", "silent", start - timedelta(hours=3), 10),
    ]
    service.take(ndjson(events), "http")
    places = {(p["server"], p["version"]): p for p in service.fleet("m", NOON)}
    assert {place: p["serving"] for place, p in places.items()} == {
        ("switched", "1"): False,
        ("switched", "2"): True,
        ("both", "1"): True,
        ("both", "2"): True,
        ("silent", "1"): False,
    }
    assert places["switched", "1"]["last_seen"] == (start + 19 * MINUTE).isoformat()
    assert places["switched", "2"]["first_seen"] == (start + 20 * MINUTE).isoformat()
    assert {p["rows"] for p in places.values()} == {20, 40, 30, 10}


def test_the_map_of_the_past_does_not_know_the_future(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([*served("1", "s", NOON - 20 * MINUTE, 10), *served("2", "s", NOON - 10 * MINUTE, 10)]), "http")
    assert [p["version"] for p in service.fleet("m", NOON - 10 * MINUTE)] == ["1"]


def test_what_nobody_announced_is_marked(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([*served("1", "a", NOON - 9 * MINUTE, 9), *served("2", "b", NOON - 9 * MINUTE, 9)]), "http")
    assert {p["announced"] for p in service.fleet("m", NOON)} == {None}
    release = {"type": "release", "model": "m", "version": "1", "action": "deploy", "timestamp": NOON.timestamp() - 600}
    service.take(ndjson([release]), "http")
    assert {p["version"]: p["announced"] for p in service.fleet("m", NOON)} == {"1": True, "2": False}


def test_a_sampled_pod_counts_for_what_it_stands_for(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(i, NOON - MINUTE, sampling_fraction=0.1, server="s") for i in range(5)]), "http")
    place = service.fleet("m", NOON)[0]
    assert (place["rows"], place["requests"]) == (5, 50.0)
