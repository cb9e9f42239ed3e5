"""When a rollback may be asked for, and what proves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from alerting import BEGIN, action, window

from alerts.action import Action, ActionState
from alerts.actions.rollback import Rollback, has_effect, refusal, target_share
from alerts.incidents import Incident
from alerts.policy import Policy, Verdict
from alerts.serving import Served

NOW = BEGIN + timedelta(hours=12)
ROLLBACK = Rollback("rollback", "ci")
PAGE = Policy("worse", "accuracy_drop", severity="page")
SERVING: Served = {"1": {"a": 500}, "2": {"b": 500}}
FIRING = replace(
    Incident.of(PAGE, Verdict("worse", "drifted", "2", "", "", window(0), baseline_version="1")),
    state="firing",
    baseline_version="1",
)


def earlier(state: ActionState, version: str = "2", ago: timedelta = timedelta(days=1)) -> Action:
    return action(state, NOW - ago, version=version, target="0" if version == "1" else "1")


def refused(
    incident: Incident = FIRING,
    serving: Served = SERVING,
    firing: Sequence[Incident] = (FIRING,),
    actions: Sequence[Action] = (),
) -> str:
    return refusal(ROLLBACK, incident, serving, firing, actions, NOW)


def test_a_firing_version_that_serves_may_be_rolled_back() -> None:
    assert refused() == ""


@pytest.mark.parametrize("incident", [replace(FIRING, baseline_version=""), replace(FIRING, version="")])
def test_evidence_that_accuses_no_version_against_another_is_refused(incident: Incident) -> None:
    assert "no version to go back to" in refused(incident)


@pytest.mark.parametrize("serving", [{"1": {"a": 500}}, {}, {"2": {"b": 0}}])
def test_a_version_that_does_not_serve_now_is_not_rolled_back(serving: Served) -> None:
    assert refused(serving=serving) == "version 2 does not serve now"


def test_a_target_that_is_accused_itself_is_refused() -> None:
    accused = replace(FIRING, version="1", baseline_version="0")
    assert refused(firing=[FIRING, accused]) == "version 1 is itself accused by an alert that is firing"


@pytest.mark.parametrize(
    "harmless",
    [
        replace(FIRING, version="1", severity="notice"),
        replace(FIRING, version="1", server="a"),  # that is the server's fault
        replace(FIRING, version="3"),
    ],
)
def test_other_incidents_do_not_count_against_the_target(harmless: Incident) -> None:
    assert refused(firing=[FIRING, harmless]) == ""


@pytest.mark.parametrize("state", ["effective", "ineffective"])
def test_a_target_that_was_rolled_back_earlier_is_refused(state: ActionState) -> None:
    assert refused(actions=[earlier(state, version="1")]) == "version 1 was itself rolled back earlier"


@pytest.mark.parametrize("state", ["expired", "dry_run"])
def test_a_target_that_was_only_nearly_rolled_back_is_not(state: ActionState) -> None:
    assert refused(actions=[earlier(state, version="1")]) == ""


@pytest.mark.parametrize("state", ["requested", "dispatched"])
def test_one_action_at_a_time(state: ActionState) -> None:
    assert refused(actions=[earlier(state, version="9")]) == "action act_1 is still in flight"


@pytest.mark.parametrize("state", ["effective", "ineffective", "expired", "dry_run"])
def test_the_cool_down_counts_from_the_last_request_of_any_kind(state: ActionState) -> None:
    soon, later = timedelta(hours=1, minutes=59), timedelta(hours=2)
    assert "cool-down is 2:00:00" in refused(actions=[earlier(state, ago=timedelta(days=3)), earlier(state, ago=soon)])
    assert refused(actions=[earlier(state, ago=timedelta(days=3)), earlier(state, ago=later)]) == ""


# The proof


@pytest.mark.parametrize(
    ("served", "proven"),
    [
        ({"1": {"a": 1000}}, True),
        ({"1": {"a": 996}, "2": {"b": 4}}, True),
        ({"1": {"a": 989}, "3": {"c": 11}}, False),  # not 99 % on the target
        ({"1": {"a": 994}, "2": {"b": 6}}, False),  # 0.6 %, where 1 % of its 50 % may be left
        ({"2": {"b": 1000}}, False),
        ({}, False),  # a dead service proves nothing
        ({"1": {"a": 0}}, False),
        ({"1": {"a": 6}}, False),  # 0.5^6 = 1.6 %: missing so few rows is chance
        ({"1": {"a": 7}}, True),  # 0.5^7 = 0.8 %
    ],
)
def test_the_rows_prove_the_effect_or_not(served: Served, proven: bool) -> None:
    assert has_effect(action("dispatched"), served) is proven


def test_a_small_canary_is_not_taken_for_rolled_back() -> None:
    canary = replace(action("dispatched"), accused_share=0.005)
    assert not has_effect(canary, {"1": {"a": 9950}, "2": {"b": 50}})  # 99.5 % on the target, as before
    assert not has_effect(canary, {"1": {"a": 500}})  # 0.995^500 = 8 %
    assert has_effect(canary, {"1": {"a": 1000}})  # 0.7 %


def test_the_targets_share() -> None:
    assert target_share(action("dispatched"), {"1": {"a": 3, "b": 3}, "2": {"b": 2}}) == 0.75
    assert target_share(action("dispatched"), {}) == 0.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"effect_share": 0.5}, "effect_share"),
        ({"effect_share": 1.01}, "effect_share"),
        ({"cool_down": timedelta(seconds=-1)}, "cool_down"),
        ({"expires": timedelta(0)}, "positive"),
        ({"settle": timedelta(minutes=16)}, "settle"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rollback("rollback", "ci", **settings)


def test_it_is_a_dry_run_unless_told_otherwise() -> None:
    assert ROLLBACK.dry_run
