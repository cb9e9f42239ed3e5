"""Answers as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

MOST_FEATURES = 15


def show_evaluation(answer: dict[str, Any]) -> None:
    """The verdicts of the windows that end at one time, and what they rest on."""
    console = Console()
    findings: list[dict[str, Any]] = answer["findings"]
    console.print(f"[bold]{answer['model']}[/] ({answer['environment']}) at {short(answer['at'])}")
    for start, end in sorted({(f["start"], f["end"]) for f in findings}):
        here = [f for f in findings if (f["start"], f["end"]) == (start, end)]
        console.print(f"\n[bold]{short(start)} to {short(end)}[/]")
        _show_volume(console, here)
        _show_features(console, here, "drift", "Inputs and outputs against the reference")
        _show_features(console, here, "server_outlier", "Servers against their fleet")
        _show_features(console, here, "version_contrast", "Versions against each other")
        _show_accuracy(console, here)
    for verdict in answer["verdicts"]:
        console.print(verdict_line(verdict))


def show_fleet(model: str, places: list[dict[str, Any]]) -> None:
    """Which version served on which server."""
    table = Table("server", "version", "rows", "first seen", "last seen", "serves", "announced", title=model)
    announced = {True: "yes", False: "no", None: "-"}
    for p in places:
        times = (short(p["first_seen"]), short(p["last_seen"]))
        table.add_row(
            p["server"],
            p["version"],
            str(p["rows"]),
            *times,
            "yes" if p["serving"] else "no",
            announced[p["announced"]],
        )
    Console().print(table if places else f"{model}: no traffic up to then")


def show_status(answer: dict[str, Any]) -> None:
    """What is kept, and what goes on."""
    console = Console()
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in answer["rows"].items())
    console.print(f"at {short(answer['now'])}: {rows}")
    table = Table("model", "environment", "task", "features", "reference", "owner")
    for m in answer["models"]:
        reference = ", ".join(m["references"]) or "none"
        table.add_row(m["model"], m["environment"], m["task"], str(len(m["features"])), reference, m["owner"])
    if answer["models"]:
        console.print(table)
    for incident in answer["incidents"]:
        console.print(
            f"[red]firing[/] {incident['policy']}: {incident['model']} {_place(incident)}"
            f"since {short(incident['since'])}"
        )


def verdict_line(verdict: dict[str, Any]) -> str:
    """One verdict as a sentence.

    >>> verdict_line({"policy": "inputs", "state": "ok", "features": [], "reason": ""})
    '[green]ok[/] inputs'
    """
    colour = {"ok": "green", "drifted": "red"}.get(verdict["state"], "yellow")
    features = f": {', '.join(verdict['features'])}" if verdict.get("features") else ""
    reason = f" ({verdict['reason']})" if verdict.get("reason") else ""
    return f"[{colour}]{verdict['state']}[/] {verdict['policy']} {_place(verdict)}".rstrip() + features + reason


def short(time: str) -> str:
    """A time as people read it.

    >>> short("2026-01-31T10:00:00+00:00")
    '2026-01-31 10:00Z'
    """
    return time[:16].replace("T", " ") + "Z"


def _place(row: dict[str, Any]) -> str:
    return "".join(f"{name} {row[name]} " for name in ("version", "server", "segment") if row.get(name))


def _show_volume(console: Console, findings: list[dict[str, Any]]) -> None:
    for f in findings:
        if f["detector"] == "volume":
            console.print(f"{f['n']:,} predictions")
        if f["message"] and f["detector"] == "drift" and "feature" not in f:
            console.print(f"[yellow]{f['message']}[/]")


def _show_features(console: Console, findings: list[dict[str, Any]], detector: str, title: str) -> None:
    rows = [f for f in findings if f["detector"] == detector and "feature" in f and "without_server" not in f]
    if not rows:
        return
    table = Table("feature", "place", "what", "severity", "distance", "p", "rows", title=title, title_justify="left")
    for f in rows[:MOST_FEATURES]:
        distance = "" if f["value"] is None else f"{f['value']:.3f}"
        p_value = "" if f["p_value"] is None else f"{f['p_value']:.2g}"
        what = f["component"] if f["status"] == "measured" else f["message"] or f["status"]
        table.add_row(f["feature"], _place(f), what, f"{f['severity']:.2f}", distance, p_value, str(f["n"]))
    console.print(table)
    if len(rows) > MOST_FEATURES:
        console.print(f"and {len(rows) - MOST_FEATURES} more; --json shows all")


def _show_accuracy(console: Console, findings: list[dict[str, Any]]) -> None:
    for f in findings:
        if f["detector"] in {"accuracy", "accuracy_drop"} and "server" not in f:
            name = "accuracy" if f["detector"] == "accuracy" else f"loss above {f['baseline']}"
            if f["value"] is None:
                console.print(f"{name} of version {f.get('version', '')}: {f['message'] or f['status']}")
                continue
            interval = f" ({f['low']:.3f} to {f['high']:.3f})" if f["low"] is not None else ""
            coverage = f["effects"].get("label_coverage", 0.0)
            console.print(
                f"{name} of version {f.get('version', '')}: {f['value']:.3f}{interval}, {coverage:.1%} labelled"
            )
