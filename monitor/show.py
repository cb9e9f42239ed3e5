"""Answers as tables on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from monitor.scenarios import Fired, Outcome

BASELINES = {"reference": "the reference", "history": "the same hours before"}
MOST_FEATURES = 15
FACTS = frozenset({"schema", "silence", "fleet", "joint"})


def show_evaluation(answer: dict[str, Any]) -> None:
    """The verdicts of the windows that end at one time, and what they rest on."""
    console = Console()
    findings: list[dict[str, Any]] = answer["findings"]
    console.print(f"[bold]{escape(answer['model'])}[/] ({escape(answer['environment'])}) at {short(answer['at'])}")
    for line in verdict_lines(answer["verdicts"]):
        console.print(line, highlight=False)
    for start, end in sorted(
        {(f["start"], f["end"]) for f in findings}, key=lambda span: (span[1], span[0]), reverse=True
    ):
        here = [f for f in findings if (f["start"], f["end"]) == (start, end)]
        console.print(f"\n[bold]{short(start)} to {short(end)}[/]")
        _show_volume(console, here)
        for kind, words in BASELINES.items():
            against = [f for f in here if (f.get("baseline") or "reference").partition(":")[0] == kind]
            _show_features(console, against, "drift", f"Inputs and outputs against {words}")
        _show_features(console, here, "server_outlier", "Servers against their fleet")
        _show_features(console, here, "version_contrast", "Versions against each other")
        _show_accuracy(console, here)
        _show_facts(console, here)


def show_fleet(model: str, places: list[dict[str, Any]]) -> None:
    """Which version served on which server."""
    table = Table("server", "version", "rows", "first seen", "last seen", "serves", "announced", title=escape(model))
    announced = {True: "yes", False: "no", None: "-"}
    for p in places:
        times = (short(p["first_seen"]), short(p["last_seen"]))
        table.add_row(
            escape(p["server"]),
            escape(p["version"]),
            str(p["rows"]),
            *times,
            "yes" if p["serving"] else "no",
            announced[p["announced"]],
        )
    Console().print(table if places else f"{escape(model)}: no traffic up to then")


def show_budget(answer: dict[str, Any]) -> None:
    """Where a budget of false alarms goes."""
    console = Console()
    table = Table("watch", "window", "policies", "a week", "in one window", "spread over")
    for look in answer["looks"]:
        spread = "no window judged yet"
        if "comparisons" in look:
            places = max(1, look["versions"]), max(1, look["servers"]), max(1, look["segments"])
            spread = (
                f"{look['comparisons']} comparisons: {look['features']} features, "
                + ", ".join(f"{n} {what}" for n, what in zip(places, ("versions", "servers", "segments"), strict=True))
                + f"; {look['calibrated']} of them by history"
            )
        table.add_row(
            look["watch"],
            look["window"],
            escape(", ".join(look["policies"])),
            f"{look['per_week']:.3f}",
            f"{look['alpha']:.2g}",
            spread,
        )
    console.print(
        f"[bold]{escape(answer['model'])}[/]: at most {answer['false_alarms_per_week']:g} false alarms a week; "
        f"{answer['reserved_per_week']:.3g} of it are kept for windows that are judged again"
    )
    console.print(table if answer["looks"] else "No policy tests anything, so nothing is spent")
    if answer["outside"]:
        console.print(f"Are about facts, and take nothing of it: {escape(', '.join(answer['outside']))}")


def show_servers(servers: list[dict[str, Any]]) -> None:
    """What serves on each server, and how its clock is."""
    table = Table(
        "server", "model", "version", "since", "health checks failed", "events arrive after", "clock ahead by"
    )
    for s in servers:
        failed = f"{s['failures']} of {s['probes']}" if "probes" in s else "-"
        known = "clock_ahead_seconds" in s
        clock = [f"{s[name]:.1f} s" if known else "-" for name in ("arrival_delay_seconds", "clock_ahead_seconds")]
        for what in s["serves"] or [{"model": "nothing", "version": "", "since": ""}]:
            since = short(what["since"]) if what["since"] else ""
            table.add_row(*map(escape, (s["server"], what["model"], what["version"], since, failed, *clock)))
    Console().print(table if servers else "No server is known up to then")


def show_audit(answer: dict[str, Any]) -> None:
    """What is kept and is not what was counted when it came in."""
    console = Console()
    span = f"{short(answer['from'])} to {short(answer['to'])}"
    found = answer["disagreements"]
    if not found:
        console.print(f"{span}: rows and profiles are as many as were counted when they came in", highlight=False)
        return
    table = Table("model", "hour", "source", "batch", "what", "expected", "found", "repair", title=span)
    for d in found:
        hour = short(d["hour"]) if d["hour"] else ""
        texts = (d["model"], hour, d["source"], d["batch"], d["what"], str(d["expected"]), str(d["found"]), d["repair"])
        table.add_row(*map(escape, texts))
    console.print(table)


def show_explanation(model: str, answer: dict[str, Any]) -> None:
    """One feature's rows beside those of the reference."""
    span = f"{short(answer['from'])} to {short(answer['to'])}"
    table = Table("", span, escape(f"against {answer['against']}"), title=escape(f"{model}: {answer['feature']}"))
    table.add_row("rows", f"{answer['rows']:,}", f"{answer['rows_reference']:,}")
    table.add_row("missing", f"{answer['missing']:.2%}", f"{answer['missing_reference']:.2%}")
    console = Console()
    console.print(table)
    told = [
        f"{name} {answer[key]:.4g}"
        for name, key in (("statistic", "statistic"), ("p", "p_value"))
        if answer[key] is not None
    ]
    console.print(escape(f"{answer['test']}: {', '.join(told)}"), highlight=False)
    console.print(", ".join(f"{name} {value:.4g}" for name, value in answer["statistics"].items()), highlight=False)


def show_dead_letters(groups: list[dict[str, Any]]) -> None:
    """How many lines were refused, by source and reason."""
    table = Table("lines", "reason", "source", "first", "last", "for example", title="Dead letters")
    for g in groups:
        times = (short(g["first_received"]), short(g["last_received"]))
        table.add_row(f"{g['lines']:,}", *map(escape, (g["reason"], g["source"], *times, g["example"])))
    Console().print(table if groups else "No dead letters")


def show_status(answer: dict[str, Any]) -> None:
    """What is kept, and what goes on."""
    console = Console()
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in answer["rows"].items())
    console.print(f"at {short(answer['now'])}: {rows}")
    table = Table("model", "environment", "task", "features", "reference", "owner")
    for m in answer["models"]:
        reference = ", ".join(m["references"]) or "none"
        cells = (m["model"], m["environment"], m["task"], str(len(m["features"])), reference, m["owner"])
        table.add_row(*map(escape, cells))
    if answer["models"]:
        console.print(table)
    for incident in answer["incidents"]:
        console.print(
            "[red]firing[/] "
            + escape(f"{incident['policy']}: {incident['model']} {_place(incident)}since {short(incident['since'])}")
            + escape(f": {causes}" if (causes := _causes(incident, since=True)) else "")
        )


def verdict_lines(verdicts: list[dict[str, Any]]) -> list[str]:
    """The verdicts as sentences; what is alike but for its place stands in one.

    >>> alike = {"policy": "p", "state": "unsure", "features": [], "reason": "too few rows"}
    >>> verdict_lines([{**alike, "server": "a"}, {**alike, "server": "b"}, {**alike, "state": "ok", "reason": ""}])
    ['[yellow]unsure[/] p: server a, server b (too few rows)', '[green]ok[/] p']
    """
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for v in verdicts:
        key = (v["state"], v["policy"], _causes(v) or ", ".join(v["features"]), _remark(v))
        groups.setdefault(key, []).append(_place(v).strip())
    lines = []
    for (state, policy, features, reason), places in groups.items():
        colour = {"ok": "green", "drifted": "red"}.get(state, "yellow")
        words = ", ".join(dict.fromkeys(p for p in (*places, features) if p))
        told = f" ({reason})" if reason else ""
        lines.append(f"[{colour}]{state}[/] " + escape(f"{policy}{': ' if words else ''}{words}{told}"))
    return lines


def short(time: str) -> str:
    """A time as people read it.

    >>> short("2026-01-31T10:00:00+00:00")
    '2026-01-31 10:00Z'
    """
    return time[:16].replace("T", " ") + "Z"


def _causes(row: dict[str, Any], *, since: bool = False) -> str:
    """The features that changed, with what changed and where, and since when.

    >>> _causes({"causes": [{"feature": "age", "component": "missing", "where": "server s3"}]})
    'age (missing, only server s3)'
    """
    told = []
    for c in row.get("causes", []):
        where = f"only {c['where']}" if c["where"] else ""
        began = f"in windows from {short(c['since'])}" if since else ""
        told.append(f"{c['feature']} ({', '.join(filter(None, (c['component'], where, began)))})")
    return ", ".join(told)


def _remark(verdict: dict[str, Any]) -> str:
    info = ", ".join(verdict.get("info", []))
    return "; ".join(filter(None, (verdict["reason"], info and f"changed by less than matters: {info}")))


def _place(row: dict[str, Any]) -> str:
    return "".join(f"{name} {row[name]} " for name in ("version", "server", "segment") if row.get(name))


def _show_volume(console: Console, findings: list[dict[str, Any]]) -> None:
    for f in findings:
        if f["detector"] == "volume":
            console.print(f"{f['n']:,} predictions")
        if f["message"] and f["detector"] == "drift" and "feature" not in f:
            console.print(f"[yellow]{escape(f['message'])}[/]")


def _show_features(console: Console, findings: list[dict[str, Any]], detector: str, title: str) -> None:
    rows = [f for f in findings if f["detector"] == detector and "feature" in f and "without" not in f]
    measured = [f for f in rows if f["status"] == "measured"]
    differ = [f for f in measured if f["severity"] > 0]
    if rows and not measured:
        console.print(f"{title}: [yellow]{escape(rows[0]['message'] or rows[0]['status'])}[/]")
    elif rows and not differ:
        console.print(f"{title}: nothing differs by more than chance ({len(rows)} compared)")
    if not differ:
        return
    table = Table("feature", "place", "what", "severity", "distance", "p", "rows", title=title, title_justify="left")
    for f in differ[:MOST_FEATURES]:
        distance = "" if f["value"] is None else f"{f['value']:.3f}"
        p_value = "" if f["p_value"] is None else f"{f['p_value']:.2g}"
        what = f["component"] if f["status"] == "measured" else f["message"] or f["status"]
        cells = (f["feature"], _place(f), what, f"{f['severity']:.2f}", distance, p_value, str(f["n"]))
        table.add_row(*map(escape, cells))
    console.print(table)
    more = len(rows) - min(len(differ), MOST_FEATURES)
    if more:
        console.print(f"and {more} more, shown by --json")


def _show_facts(console: Console, findings: list[dict[str, Any]]) -> None:
    """What was seen of features, servers and versions, the worst first; yellow where it counts."""
    for f in findings:
        if f["detector"] in FACTS and f["status"] == "measured" and f["message"]:
            place = _place(f)
            told = escape(f"{f['detector']}: {place}{': ' if place else ''}{f['message']}".replace(" :", ":"))
            console.print(f"[yellow]{told}[/]" if f["severity"] >= 1 else told, highlight=False)


def _show_accuracy(console: Console, findings: list[dict[str, Any]]) -> None:
    for f in findings:
        if f["detector"] in {"accuracy", "accuracy_drop"} and "server" not in f:
            what = "accuracy" if f["detector"] == "accuracy" else f"loss above {f['baseline']}"
            name = escape(f"{what} of version {f.get('version', '')}")
            if f["value"] is None:
                console.print(f"{name}: {escape(f['message'] or f['status'])}")
                continue
            interval = f" ({f['low']:.3f} to {f['high']:.3f})" if f["low"] is not None else ""
            coverage = f["effects"].get("label_coverage", 0.0)
            console.print(f"{name}: {f['value']:.3f}{interval}, {coverage:.1%} labelled")


def show_replay(answer: dict[str, Any]) -> None:
    """How often each policy would have fired, and its incidents."""
    console = Console()
    stored, anew = answer["windows_stored"], answer["windows_measured_anew"]
    console.print(f"[bold]{escape(answer['model'])}[/] from {short(answer['from'])} to {short(answer['to'])}")
    console.print(
        f"{stored:,} windows as they were measured and {anew:,} measured anew in {answer['seconds']:.1f} s "
        f"({answer['windows_per_second']:,.0f} a second)",
        highlight=False,
    )
    for note in answer["notes"]:
        console.print(f"[yellow]{escape(note)}[/]")
    table = Table("policy", "watch", "window", "windows", "drifted", "ok", "unsure", "error", "fired")
    numbers = ("windows", "drifted", "ok", "unsure", "error", "fired")
    for p in answer["policies"]:
        table.add_row(*(escape(p[name]) for name in ("policy", "watch", "window")), *(f"{p[n]:,}" for n in numbers))
    if answer["policies"]:
        console.print(table)
    for p in answer["policies"]:
        for reason in p["measured_anew"]:
            console.print(f"{escape(p['policy'])} is measured anew: {escape(reason)}", highlight=False)
    fired = sum(p["fired"] for p in answer["policies"])
    budget = f"{answer['false_alarms_per_week']:g} a week"
    expected = f"{answer['expected_false_alarms']:.1f} false alarms ({budget})"
    console.print(f"{fired} incident{'' if fired == 1 else 's'}; the budget of the span is {expected}", highlight=False)
    for incident in answer["incidents"]:
        console.print(escape(incident_line(incident)), highlight=False, soft_wrap=True)


def show_outcomes(outcomes: list[Outcome], others: list[Fired]) -> None:
    """What became of each expectation of a scenario, and what was said beside them."""
    console = Console()
    for outcome in outcomes:
        word = "[green]pass[/]" if outcome.passed else "[red]FAIL[/]"
        console.print(f"{word} {escape(outcome.words)}", highlight=False, soft_wrap=True)
    for fired in others:
        console.print(f"also {escape(f'{fired.policy} fired {fired}')}", highlight=False, soft_wrap=True)


def incident_line(incident: dict[str, Any]) -> str:
    """An incident of a replay in one line.

    >>> told = {"policy": "p", "since": "2026-01-31T10:00:00+00:00", "until": None, "server": "pod-3", "version": "1"}
    >>> incident_line({**told, "features": ["age"], "reason": "", "ended": "", "action": "put-back"})
    '2026-01-31 10:00Z, still open: p, version 1 server pod-3, age; would have asked for put-back'
    """
    until = f" to {short(incident['until'])}" if incident["until"] else ", still open"
    words = (incident["policy"], _place(incident).strip(), ", ".join(incident["features"]), incident["reason"])
    ended = f"; ended as {incident['ended']}" if incident["ended"] else ""
    asked = f"; would have asked for {incident['action']}" if incident["action"] else ""
    return f"{short(incident['since'])}{until}: {', '.join(w for w in words if w)}{ended}{asked}"
