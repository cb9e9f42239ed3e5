"""The dashboard of the whole fleet."""

from __future__ import annotations

from dashboards.grafana.panels import (
    UID_PREFIX,
    Json,
    chosen,
    column,
    dashboard,
    heading,
    literal,
    moments,
    query,
    red_from,
    stats,
    table,
    time_series,
    variable,
)

OVERVIEW_UID = f"{UID_PREFIX}fleet"
ENVIRONMENTS = chosen("environment", "environment")
SEVERAL_ENVIRONMENTS = "length([${environment:singlequote}]) > 1"
EVERYTHING = f"{ENVIRONMENTS} AND segment = ''"
SHARE_OF_ERRORS = column("Share of errors", unit="percentunit", decimals=2)
CHANGE_COLUMNS = (red_from("Severity", 1), column("Value", decimals=3), column("p", unit="sci"))
CHANGES = "What differs by more than its tolerance"
CHANGES_TEXT = (
    "The latest finding of each subject, if its effect reaches its tolerance (severity 1), or if a version was less "
    "accurate than another by an interval without zero; and windows that could not be judged. Breaks come before "
    "shifts. Findings only measure: the policies decide which of them are alarms."
)


def _named(name: str) -> str:
    """What a line stands for; with its environment where several are chosen, as these may share names."""
    return f"if({SEVERAL_ENVIRONMENTS}, concat(environment, ' ', {name}), {name})"


MODEL, SERVER, MODEL_AND_VERSION = map(_named, ("model", "server", "concat(model, ' ', version)"))


def fleet_dashboard(page_url: str = "") -> Json:
    """All models and servers of the environments that are chosen."""
    panels = [*_now(), *_traffic(), *_servers()]
    choice = variable("environment", "Environment", "Part of every key of Telltale's.", query("environments"))
    marks = moments("Releases", query("release_marks", scope=ENVIRONMENTS))
    text = "Every model and server that Telltale watches: what serves where, how fast, how well, and what has changed."
    return dashboard(OVERVIEW_UID, "Telltale fleet", text, panels, [choice], marks, page_url)


def _now() -> list[Json]:
    latest = query("latest_findings", scope=ENVIRONMENTS)
    opens = {"title": "Open the model's dashboard", "url": "/d/${__value.raw}"}
    shown_as = {"type": "regex", "options": {"pattern": ".*", "result": {"text": "open", "index": 0}}}
    columns = [
        SHARE_OF_ERRORS,
        column("Latency p95", unit="ms"),
        red_from("Largest change", 1),
        column("Dashboard", links=[opens], mappings=[shown_as]),
    ]
    models = query("models", scope=ENVIRONMENTS, latest_findings=latest, uid_prefix=literal(UID_PREFIX))
    return [
        stats("In this time", "Live traffic of all models.", query("totals", scope=ENVIRONMENTS), [SHARE_OF_ERRORS]),
        table(
            "Models",
            "Traffic of each model. The largest change is an effect over its tolerance; below 1 is too little.",
            models,
            columns,
        ),
        table(CHANGES, CHANGES_TEXT, query("changes", latest_findings=latest), CHANGE_COLUMNS),
        table(
            "Which version serves on which server",
            "The version that each server showed last, if it was seen in the last hour before the end of this time; "
            "several, where they took turns within the server's last five minutes.",
            query("places", scope=ENVIRONMENTS, shown="serving"),
        ),
    ]


def _traffic() -> list[Json]:
    return [
        heading("Traffic"),
        time_series(
            "Requests per minute, by model and version",
            "Live requests; what was sampled away by the pods is counted in.",
            query("requests", scope=EVERYTHING, series=MODEL_AND_VERSION),
            stacked=True,
        ),
        time_series(
            "Requests per minute, by environment",
            "Live requests of all models together.",
            query("requests", scope=EVERYTHING, series="environment"),
            stacked=True,
        ),
        time_series(
            "Share of errors, by model and version",
            "Requests with the status error.",
            query("errors", scope=ENVIRONMENTS, series=MODEL_AND_VERSION),
            share=True,
        ),
        time_series(
            "Latency, by model",
            "Median and 95th percentile of live requests, from the kept rows and their weights.",
            query("latency", scope=ENVIRONMENTS, series=MODEL),
            unit="ms",
            legend="${__field.labels.series} ${__field.name}",
        ),
        time_series(
            "Labels per minute, by model",
            "By the time at which the truth became known.",
            query("labels", scope=ENVIRONMENTS, series=MODEL),
            stacked=True,
        ),
        time_series(
            "Lines per minute that could not be taken in",
            "Dead letters of all environments, by reason, at their arrival.",
            query("dead_letters"),
            stacked=True,
        ),
    ]


def _servers() -> list[Json]:
    return [
        heading("Health checks"),
        time_series(
            "Latency of health checks, by server",
            "The 95th percentile of what the probe measured or servers reported.",
            query("health_latency", scope=ENVIRONMENTS, series=SERVER),
            unit="ms",
        ),
        time_series(
            "Failed health checks, by server",
            "The share of checks that failed.",
            query("health_failures", scope=ENVIRONMENTS, series=SERVER),
            share=True,
        ),
    ]
