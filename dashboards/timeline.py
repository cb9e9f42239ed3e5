"""The time line: what was found and done, newest first, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dashboards.claims import OBSERVED, WATCHES, claim, over
from dashboards.formats import decimal, share, shortened
from dashboards.markup import Content, Html, join, tag
from dashboards.parts import folded, when_and_age
from dashboards.words import Row, feature_names, model_and_place, model_of, name, separated

MOST_SHOWN = 25
LONGEST_DETAIL = 160
HEAD = frozenset(
    {"id", "at", "event", "model", "environment", "server", "version", "segment", "features", "causes", "late"}
)
FOR_MACHINES = frozenset({"incident", "message_id"})

Teller = Callable[[Row, str], Content]


def timeline(entries: Sequence[Row], tasks: Mapping[Any, str], now: Any) -> Html:
    """All entries; the older ones are folded away. ``tasks``: the task of each model."""
    items = [_item(entry, tasks.get(entry.get("model"), ""), now) for entry in entries]
    older = items[MOST_SHOWN:]
    return join(
        [
            tag("ol", items[:MOST_SHOWN], class_="timeline") if items else tag("p", "Nothing yet.", class_="quiet"),
            folded("timeline-older", f"{len(older)} older", tag("ol", older, class_="timeline")) if older else None,
        ]
    )


def sentence(entry: Row, task: str = "") -> Html:
    """An entry as a sentence. Of an event that is not known here, its name, place and features.

    >>> sentence({"event": "drift_found", "model": "credit", "features": ["income"]}).count("changed")
    1
    >>> sentence({"event": "budget_spent", "model": "credit"})
    'Budget spent: <bdi class="name">credit</bdi>.'
    """
    event = str(entry.get("event") or "entry")
    tell = SENTENCES.get(event)
    if tell is not None:
        return join([tell(entry, task), "."])
    known = separated([model_and_place(entry), feature_names(entry.get("features"))])
    return join([event.replace("_", " ").capitalize(), [": ", known] if known else "", "."])


def details(entry: Row) -> list[tuple[str, str]]:
    """What an entry holds for people beside its sentence, by name."""
    told = HEAD | FOR_MACHINES | _told(str(entry.get("event")))
    kept = {k: v for k, v in entry.items() if k not in told and v not in (None, "", [], {}, False)}
    return [(k.replace("_", " "), _plain(v)) for k, v in kept.items()]


def mood(event: str) -> str:
    """Whether an event is bad, good, an action under way, or just worth a look.

    >>> mood("drift_found"), mood("rollback_ineffective"), mood("rollback_effective"), mood("rollback_started")
    ('bad', 'bad', 'good', 'act')
    """
    if event.endswith(("_found", "_firing", "_failed", "_ineffective", "_refused", "_expired", "_disabled")):
        return "bad"
    if event.endswith(("_cleared", "_resolved", "_effective")):
        return "good"
    return "act" if event.startswith("rollback_") else "note"


def _item(entry: Row, task: str, now: Any) -> Html:
    extra = (join([key, " ", tag("bdi", shortened(value, LONGEST_DETAIL))]) for key, value in details(entry))
    return tag(
        "li",
        tag("p", sentence(entry, task)),
        tag("p", separated([when_and_age(entry.get("at"), now), *extra], " · "), class_="quiet"),
        class_=mood(str(entry.get("event") or "")),
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return decimal(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _told(event: str) -> frozenset[str]:
    """What the sentence of an event tells beside the head of the entry."""
    if event not in SENTENCES:
        return frozenset()
    if event.removesuffix("_found") in OBSERVED:
        return frozenset({"value", "baseline_version", "reason"})
    if event.endswith("_found"):
        return frozenset({"value", "baseline_version"})
    if event.startswith("alert_"):
        return frozenset({"policy", "value", "baseline_version"})
    return frozenset({"value", "baseline_version", "reason", "dry_run"})


def _found(watch: str, entry: Row, task: str) -> Content:
    return claim(entry, watch, task)


def _cleared(watch: str, entry: Row, _: str) -> Content:
    return over(entry, watch)


def _alert(verb: str, entry: Row, _: str) -> Content:
    features: Content = [": ", feature_names(entry["features"])] if entry.get("features") else ""
    return ["Alert ", name(entry.get("policy")), f" {verb} for ", model_and_place(entry), features]


def _rollback(words: str, entry: Row, _: str) -> Content:
    kind = "Dry run of a rollback of " if entry.get("dry_run") is True else "Rollback of "
    accused: Content = [" from version ", name(entry["version"])] if entry.get("version") else ""
    target: Content = [" to version ", name(entry["baseline_version"])] if entry.get("baseline_version") else ""
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    return [kind, model_of(entry), accused, target, f" {words}", reason]


def _effective(entry: Row, _: str) -> Content:
    rows = "serves again" if entry.get("value") is None else f"serves {share(entry['value'])} of the rows"
    proof: Content = [": version ", name(entry["baseline_version"]), " ", rows] if entry.get("baseline_version") else ""
    return ["Rollback of ", model_of(entry), " worked, as the logs show", proof]


SENTENCES: Mapping[str, Teller] = {
    **{f"{watch}_found": partial(_found, watch) for watch in WATCHES},
    **{f"{watch}_cleared": partial(_cleared, watch) for watch in WATCHES},
    "alert_firing": partial(_alert, "fires"),
    "alert_resolved": partial(_alert, "is resolved"),
    "rollback_requested": partial(_rollback, "requested"),
    "rollback_refused": partial(_rollback, "refused"),
    "rollback_dispatched": partial(_rollback, "received"),
    "rollback_expired": partial(_rollback, "came too late"),
    "rollback_started": partial(_rollback, "started"),
    "rollback_succeeded": partial(_rollback, "reported as done; the logs will show whether it worked"),
    "rollback_failed": partial(_rollback, "failed"),
    "rollback_effective": _effective,
    "rollback_ineffective": partial(_rollback, "had no effect"),
}
