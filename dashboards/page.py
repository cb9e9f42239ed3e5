"""The page of Telltale: one document that needs nothing else, from plain values."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from dashboards.alarms import alarms, is_page
from dashboards.findings import findings_table, pictures
from dashboards.fleet import fleet_grid, server_table
from dashboards.formats import counted, day, moment, number
from dashboards.markup import Content, Html, join, tag
from dashboards.parts import card, colours
from dashboards.performance import accuracy, latency
from dashboards.timeline import timeline
from dashboards.words import Row, feature_names, listed, model_id, model_key, model_of, name, separated, version_of

TOTALS = {
    "predictions": ("prediction", "predictions"),
    "labels": ("label", "labels"),
    "findings": ("finding", "findings"),
    "feature_rows": ("feature row", "feature rows"),
    "dead_letters": ("rejected line", "rejected lines"),
}
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><circle cx='16' cy='16' r='14' fill='%230b5d7a'/>"
    "<path d='M16 4l5 12h-10z' fill='%23fff'/><path d='M16 28l5-12h-10z' fill='%2389c3d6'/></svg>"
)


def render_page(overview: Mapping[str, Any]) -> str:
    """The whole page as HTML, from what ``monitor.overview`` gives.

    It holds its own style and script, and a policy that lets a browser load and run nothing else. Every text from
    the overview is escaped. What is missing, None or not finite is shown as a dash or left out.

    >>> "Nothing is firing" in render_page({})
    True
    """
    firing = listed(overview.get("firing"))
    pages = sum(map(is_page, firing))
    return "<!doctype html>\n" + tag(
        "html",
        _head(f"{pages} firing · Telltale" if pages else "Telltale"),
        tag(
            "body",
            _header(overview, firing),
            tag("main", _main(overview, firing)),
            tag("p", id="stale", role="status", hidden=True),
            tag("script", _own_file("page.js")),
        ),
        lang="en",
    )


def _head(title: str) -> Html:
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest('page.css')}'",
            f"script-src '{_digest('page.js')}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href=f"data:image/svg+xml,{ICON}"),
        tag("style", _own_file("page.css")),
    )


def _header(overview: Row, firing: Sequence[Row]) -> Html:
    now = moment(overview.get("now"))
    models = listed(overview.get("models"))
    alarmed = {model_key(i) for i in firing if is_page(i)}
    links = [
        tag(
            "a",
            model_of(m),
            tag("span", "firing", class_="tag bad") if model_key(m) in alarmed else None,
            href=f"#{model_id(m)}",
        )
        for m in models
    ]
    time = tag("time", f"{day(now)}, {now:%H:%M:%S} UTC", datetime=now.isoformat()) if now else "time not known"
    return tag(
        "header",
        tag("div", _compass(alarm=bool(alarmed)), tag("h1", "Telltale"), tag("p", time, class_="now"), class_="brand"),
        _totals(overview.get("rows") or {}),
        tag("nav", links, aria_label="Models") if len(models) > 1 else None,
    )


def _compass(*, alarm: bool) -> Html:
    """The mark of the page: its needle stands upright while nothing is firing."""
    return tag(
        "svg",
        tag("circle", cx=16, cy=16, r=14.5, class_="rim"),
        tag(
            "g",
            tag("path", d="M16 4l4.5 12h-9z", class_="north"),
            tag("path", d="M16 28l4.5-12h-9z", class_="south"),
            transform="rotate(38 16 16)" if alarm else None,
        ),
        viewBox="0 0 32 32",
        class_="compass off-course" if alarm else "compass",
        aria_hidden="true",
    )


def _totals(rows: Mapping[str, Any]) -> Html:
    known = [(k, *TOTALS.get(k, (k.replace("_", " "),) * 2)) for k in rows if number(rows[k]) is not None]
    parts = [
        tag("li", counted(rows[key], one, many), class_="warn" if key == "dead_letters" and rows[key] else None)
        for key, one, many in known
    ]
    return tag("ul", parts, class_="totals", aria_label="What is kept")


def _main(overview: Row, firing: Sequence[Row]) -> Content:
    now = overview.get("now")
    models = listed(overview.get("models"))
    tasks = {m.get("model"): str(m.get("task") or "") for m in models}
    alarmed = {model_key(i) for i in firing if is_page(i)}
    no_models = "No model is known yet. Send events to /v1/events, or import a file with: telltale import FILE"
    return [
        tag("section", alarms(firing, tasks, now), class_="firing", aria_label="What is firing"),
        tag(
            "div",
            tag(
                "div",
                [_model(m, now, alarmed=model_key(m) in alarmed) for m in models]
                or card("Models", tag("p", no_models, class_="quiet"), level="h2"),
                class_="models",
            ),
            tag(
                "aside",
                card("Servers", server_table(listed(overview.get("servers")), now), level="h2"),
                card("Time line", timeline(listed(overview.get("timeline")), tasks, now), level="h2"),
            ),
            class_="columns",
        ),
    ]


def _model(model: Row, now: Any, *, alarmed: bool) -> Html:
    key = model_id(model)
    fleet, latest = listed(model.get("fleet")), listed(model.get("latest"))
    judged = [listed(model.get(part)) for part in ("accuracy", "latency")]
    versions = colours(
        [
            *(version_of(one) for one in fleet),
            *(version_of(finding) for rows in judged for finding in rows if finding.get("version")),
        ]
    )
    heading = f"{key}-title"
    sections: Content = [
        card("Who serves", fleet_grid(key, fleet, versions, now)),
        card("What differs", findings_table(key, latest, now), class_="card findings"),
        pictures(key, listed(model.get("pictures"))),
        tag(
            "div",
            accuracy(judged[0], str(model.get("task") or ""), versions),
            latency(key, judged[1], versions),
            class_="pair",
        ),
    ]
    return tag(
        "section",
        tag("h2", model_of(model), tag("span", "firing", class_="tag bad") if alarmed else None, id=heading),
        tag("p", _about(model), class_="quiet"),
        sections if fleet or latest or any(judged) else card("No traffic yet"),
        id=key,
        class_="model",
        aria_labelledby=heading,
    )


def _about(model: Row) -> Html:
    references = listed(model.get("references"))
    parts = (
        str(model.get("task") or ""),
        ["owner ", name(model["owner"])] if model.get("owner") else None,
        ["reference ", feature_names(references, 3)] if references else "no reference yet",
    )
    return separated((join(part) for part in parts), " · ")


@cache
def _own_file(file: str) -> Html:
    return Html(files("dashboards").joinpath(file).read_text("utf-8"))


def _digest(file: str) -> str:
    """The digest by which a content security policy knows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_own_file(file).encode()).digest()).decode()
