"""Each event of the time line as a sentence."""

from __future__ import annotations

import html
import re
from typing import Any, get_args

import pytest

from alerts.policy import Watch
from dashboards.claims import VALUES, WATCHES
from dashboards.timeline import details, mood, sentence, timeline


def words(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).replace("\u202f", " ")


def entry(event: str, **more: Any) -> dict[str, Any]:
    return {"at": "2026-01-01T06:00:00Z", "event": event, "model": "credit", **more}


CHANGE = {"version": "2", "baseline_version": "1"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            entry("server_outlier_found", server="s3", version="2", features=["income", "age"]),
            "Server s3 differs from the others that run version 2 of credit: income and age.",
        ),
        (
            entry("server_outlier_cleared", server="s3"),
            "Server s3 is like the others that run credit again.",
        ),
        (
            entry("drift_found", features=["income", "age", "@score"]),
            "Drift in credit: income, age and score changed against what is usual.",
        ),
        (
            entry("drift_found", features=["a", "b", "c", "d", "e", "f", "g"], environment="staging", segment="vip"),
            "Drift in credit in staging, segment vip: a, b, c, d, e and 2 more changed against what is usual.",
        ),
        (
            entry(
                "drift_found", features=["a"], causes=[{"feature": "a", "component": "missing", "where": "server s3"}]
            ),
            "Drift in credit: a changed against what is usual, only server s3.",
        ),
        (
            entry("server_outlier_found", server="s3", features=["a"], causes=[{"feature": "a", "where": "server s3"}]),
            "Server s3 differs from the others that run credit: a.",
        ),
        (
            entry("version_contrast_found", features=["a"], causes=[{"feature": "a", "where": "server s3"}], **CHANGE),
            "Version 2 of credit differs from version 1: a, only server s3.",
        ),
        (entry("drift_found"), "Drift in credit: its inputs changed against what is usual."),
        (
            entry("drift_cleared", features=["income"]),
            "Drift in credit is over: income is as usual again.",
        ),
        (
            entry("accuracy_drop_found", value=0.0613, **CHANGE),
            "Version 2 of credit is 6.1 percentage points less accurate than version 1.",
        ),
        (entry("accuracy_drop_found", **CHANGE), "Version 2 of credit is worse than version 1."),
        (entry("accuracy_drop_cleared", **CHANGE), "Version 2 of credit is no longer worse than version 1."),
        (
            entry("version_contrast_found", features=["income"], **CHANGE),
            "Version 2 of credit differs from version 1: income.",
        ),
        (entry("version_contrast_cleared", **CHANGE), "Version 2 of credit is like version 1 again."),
        (
            entry("latency_found", version="2", value=512.3),
            "credit, version 2 is slow: its 95th percentile is 512 ms, over the limit.",
        ),
        (entry("latency_cleared", version="2", value=512.3), "credit, version 2 is no longer slow."),
        (entry("errors_found", value=0.12), "credit fails too often: 12 % of its requests, over the limit."),
        (entry("errors_cleared", value=0.12), "credit no longer fails too often."),
        (entry("health_found", server="s3", value=0.4), "Server s3 failed 40 % of its health checks, over the limit."),
        (entry("health_cleared", server="s3", value=0.4), "Server s3 answers its health checks again."),
        (
            entry("drift_cleared", features=["income"], version="2", reason="version 2 no longer serves"),
            "Drift of credit, version 2 is over: version 2 no longer serves.",
        ),
        (entry("alert_firing", policy="drop", version="2"), "Alert drop fires for credit, version 2."),
        (entry("alert_resolved", policy="drop", version="2"), "Alert drop is resolved for credit, version 2."),
        (entry("rollback_requested", **CHANGE), "Rollback of credit from version 2 to version 1 requested."),
        (
            entry("rollback_refused", reason="cooling down until 07:00", **CHANGE),
            "Rollback of credit from version 2 to version 1 refused: cooling down until 07:00.",
        ),
        (
            entry("rollback_requested", dry_run=True, **CHANGE),
            "Dry run of a rollback of credit from version 2 to version 1 requested.",
        ),
        (
            entry("rollback_dispatched", dry_run=False, **CHANGE),
            "Rollback of credit from version 2 to version 1 received.",
        ),
        (
            entry("rollback_expired", reason="ci did not take the request within 0:15:00", **CHANGE),
            "Rollback of credit from version 2 to version 1 came too late: ci did not take the request within 0:15:00.",
        ),
        (entry("rollback_started", **CHANGE), "Rollback of credit from version 2 to version 1 started."),
        (
            entry("rollback_succeeded", **CHANGE),
            "Rollback of credit from version 2 to version 1 reported as done; the logs will show whether it worked.",
        ),
        (
            entry("rollback_failed", reason="no such image", **CHANGE),
            "Rollback of credit from version 2 to version 1 failed: no such image.",
        ),
        (
            entry("rollback_effective", **CHANGE),
            "Rollback of credit worked, as the logs show: version 1 serves again.",
        ),
        (
            entry("rollback_effective", value=0.9981, **CHANGE),
            "Rollback of credit worked, as the logs show: version 1 serves 99.81 % of the rows.",
        ),
        (entry("rollback_effective"), "Rollback of credit worked, as the logs show."),
        (
            entry("rollback_ineffective", reason="version 2 still serves on s3", **CHANGE),
            "Rollback of credit from version 2 to version 1 had no effect: version 2 still serves on s3.",
        ),
        (entry("endpoint_disabled"), "Endpoint disabled: credit."),
        ({"event": "endpoint_failing"}, "Endpoint failing."),
        (entry("moon_is_full", server="s1", features=["a"]), "Moon is full: credit, server s1, a."),
        ({}, "Entry."),
    ],
)
def test_each_event_is_a_sentence(told: dict[str, Any], expected: str) -> None:
    assert words(sentence(told, "classification")) == expected


def test_every_watch_that_a_policy_may_have_has_its_sentences() -> None:
    assert set(WATCHES) == set(get_args(Watch))
    known = {"watch": "?", "version": "2", "baseline_version": "1", "server": "s3", "value": 0.5}
    for watch in WATCHES:
        assert watch in VALUES
        for event in (f"{watch}_found", f"{watch}_cleared"):
            assert not words(sentence(entry(event, **known))).startswith(event.replace("_", " ").capitalize())


def test_the_task_gives_the_unit_of_an_accuracy_drop() -> None:
    told = entry("accuracy_drop_found", value=1234.5, **CHANGE)
    assert words(sentence(told, "regression")) == "Version 2 of credit has a mean loss 1,234 above that of version 1."


def test_what_the_sentence_leaves_out_stands_below_it() -> None:
    told = entry("rollback_refused", action_id="act-1", policy="drop", reason="cooling down", **CHANGE)
    assert details(told) == [("action id", "act-1"), ("policy", "drop")]
    report = entry("rollback_started", run_url="https://ci.example/7", dry_run=False, incident="5f2c", **CHANGE)
    assert details(report) == [("run url", "https://ci.example/7")]
    found = entry("drift_found", value=0.3, reason="age explained by server s3", policy="inputs")
    assert details(found) == [("reason", "age explained by server s3"), ("policy", "inputs")]
    unknown = {"event": "endpoint_disabled", "endpoint": "chat", "tries": 5, "reason": "410", "empty": "", "none": None}
    assert details(unknown) == [("endpoint", "chat"), ("tries", "5"), ("reason", "410")]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("server_outlier_found", "bad"),
        ("alert_firing", "bad"),
        ("rollback_refused", "bad"),
        ("rollback_ineffective", "bad"),
        ("drift_cleared", "good"),
        ("alert_resolved", "good"),
        ("rollback_effective", "good"),
        ("rollback_requested", "act"),
        ("rollback_succeeded", "act"),
        ("endpoint_disabled", "bad"),
        ("budget_spent", "note"),
    ],
)
def test_a_mark_tells_good_from_bad(event: str, expected: str) -> None:
    assert mood(event) == expected


def test_entries_keep_their_order_and_old_ones_are_folded_away() -> None:
    text = words(timeline([entry("drift_found", model=f"m{i}") for i in range(40)], {}, "2026-01-01T06:05:00Z"))
    places = [text.index(f"Drift in m{i}:") for i in range(40)]
    assert places == sorted(places)
    assert "15 older" in text
    assert "06:00, 5 min ago" in text


def test_a_time_that_is_none_is_shown_as_it_came() -> None:
    assert "yesterday" in words(timeline([entry("drift_found", at="yesterday")], {}, None))
    assert "1 Jan 2026, 06:00" in words(timeline([entry("drift_found")], {}, None))
