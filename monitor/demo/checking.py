"""Holds what Telltale said against what went wrong: for tests, and for counting over many seeds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from monitor.demo.story import ROLL_OUT, UPSTREAM_BREAKS
from monitor.demo.world import FAULTY_FEATURE, Plan

EVENTS_IN_ORDER = (
    "server_outlier_found",
    "drift_found",
    "drift_cleared",
    "accuracy_drop_found",
    "alert_firing",
    "rollback_requested",
    "rollback_effective",
    "alert_resolved",
)


def mistakes(plan: Plan, entries: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with a time line, in words; empty when all of it is right."""
    found = [*_order(entries)]
    for entry in entries:
        at = datetime.fromisoformat(entry["at"])
        match entry["event"]:
            case "server_outlier_found":
                right = (entry["server"], entry["version"], inputs(entry)) == (
                    plan.faulty_server,
                    "2",
                    [FAULTY_FEATURE],
                )
                found += [] if right and at > ROLL_OUT else [f"wrong or early: {entry}"]
            case "drift_found":
                right = sorted(inputs(entry)) == sorted((*plan.shifted, plan.nulled))
                found += [] if right and at > UPSTREAM_BREAKS else [f"wrong or early: {entry}"]
            case "accuracy_drop_found" | "alert_firing" | "rollback_requested" | "rollback_effective":
                right = (entry["version"], entry["baseline_version"]) == ("2", "1")
                found += [] if right and at > ROLL_OUT else [f"wrong or early: {entry}"]
            case "rollback_refused" | "rollback_ineffective":
                found.append(f"should not have happened: {entry}")
    return found


def inputs(entry: dict[str, Any]) -> list[str]:
    """The input features that an entry names, worst first, without the model's own outputs."""
    return [name for name in entry["features"] if not name.startswith("@")]


def _order(entries: Sequence[dict[str, Any]]) -> list[str]:
    told = [e["event"] for e in entries]
    missing = [name for name in EVENTS_IN_ORDER if name not in told]
    if missing:
        return [f"missing: {', '.join(missing)}"]
    firsts = [told.index(name) for name in EVENTS_IN_ORDER]
    return [] if firsts == sorted(firsts) else [f"out of order: {told}"]
