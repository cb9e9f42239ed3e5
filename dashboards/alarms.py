"""What is firing: a red card for each alert that wakes someone, a line for each notice, or a calm word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dashboards.claims import OBSERVED, VALUES, claim
from dashboards.formats import counted, decimal, number
from dashboards.markup import Content, Html, join, tag
from dashboards.parts import folded, when_and_age
from dashboards.words import Row, cause_words, feature_name, listed, model_id, model_of, name, place

MOST_SHOWN = 9
MOST_CHIPS = 12


def is_page(incident: Row) -> bool:
    """Whether an incident is meant to wake someone. A notice is not."""
    return incident.get("severity") != "notice"


def alarms(firing: Sequence[Row], tasks: Mapping[Any, str], now: Any) -> Html:
    """A card for each incident, pages first, or a line that says that nothing fires. ``tasks``: of each model."""
    pages = [i for i in firing if is_page(i)]
    notices = [i for i in firing if not is_page(i)]
    verb = "is" if len(pages) == 1 else "are"
    title = tag("h2", f"{counted(len(pages), 'alert')} {verb} firing", class_="bad")
    calm = tag("p", tag("b", "Nothing is firing."), class_="calm")
    cards = [_card(i, tasks.get(i.get("model"), ""), now) for i in pages]
    lines = [_line(i, tasks.get(i.get("model"), ""), now) for i in notices]
    return join(
        [
            title if pages else calm,
            _first(cards, "more-alerts", lambda some: tag("div", some, class_="alarms")),
            tag("h2", counted(len(notices), "notice"), class_="warn") if notices else None,
            tag("div", _first(lines, "more-notices", partial(tag, "ul")), class_="card notices") if notices else None,
        ]
    )


def _first(items: Sequence[Html], key: str, together: Callable[[Sequence[Html]], Html]) -> Content:
    """The first few, the rest folded away."""
    first, rest = items[:MOST_SHOWN], items[MOST_SHOWN:]
    return [together(first) if first else None, folded(key, f"{len(rest)} more", together(rest)) if rest else None]


def _line(incident: Row, task: str, now: Any) -> Html:
    about = ["since ", when_and_age(incident.get("since"), now), ", policy ", name(incident.get("policy"))]
    return tag("li", claim(incident, str(incident.get("watch") or ""), task), ". ", tag("span", about, class_="quiet"))


def _card(incident: Row, task: str, now: Any) -> Html:
    watch = str(incident.get("watch") or "")
    baseline, reason, value = (incident.get(key) for key in ("baseline_version", "reason", "value"))
    facts: list[tuple[str, Content]] = [
        ("Policy", name(incident.get("policy"))),
        ("Where", place(incident)),
        ("Since", when_and_age(incident.get("since"), now)),
        ("Compared with", ["version ", name(baseline)] if baseline else None),
        (VALUES.get(watch, "Value"), None if number(value) is None else decimal(value)),
        ("Features, worst first", _causes(incident, now) or _chips(listed(incident.get("features")))),
        ("Note", str(reason) if reason and watch not in OBSERVED else None),
    ]
    return tag(
        "article",
        tag("h3", tag("a", model_of(incident), href=f"#{model_id(incident)}")),
        tag("p", claim(incident, watch, task), ".", class_="headline"),
        tag("dl", [tag("div", tag("dt", key), tag("dd", words)) for key, words in facts if words]),
        class_="card alarm",
    )


def _causes(incident: Row, now: Any) -> Html | None:
    """What changed of each feature, where, and since when."""
    causes = listed(incident.get("causes"))
    items = []
    for cause in causes[:MOST_CHIPS]:
        about = [cause_words(cause), ", in windows from ", when_and_age(cause.get("since"), now)]
        items.append(tag("li", name(feature_name(cause.get("feature")), 32), ": ", about))
    rest = len(causes) - MOST_CHIPS
    more = tag("li", f"and {rest} more", class_="quiet") if rest > 0 else None
    return tag("ul", items, more) if items else None


def _chips(features: Sequence[Any]) -> Html | None:
    if not features:
        return None
    rest = len(features) - MOST_CHIPS
    more = tag("li", f"and {rest} more", class_="quiet") if rest > 0 else None
    return tag("ol", [tag("li", name(feature_name(f), 32)) for f in features[:MOST_CHIPS]], more, class_="chips")
