"""The dashboard of one model in one environment."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dashboards.grafana.overview import CHANGE_COLUMNS, CHANGES, CHANGES_TEXT, SHARE_OF_ERRORS
from dashboards.grafana.panels import (
    Json,
    chosen,
    dashboard,
    effect,
    heading,
    literal,
    moments,
    query,
    stats,
    table,
    time_series,
    uid,
    variable,
)
from dashboards.words import USUAL_ENVIRONMENT, Row

VERSION, SERVER, FEATURE = (chosen(name, name) for name in ("version", "server", "feature"))
WINDOW = "has([${window:singlequote}], toString(dateDiff('minute', start, end)))"
OF_ANY_VERSION = f"(version = '' OR {VERSION})"
THIN = {"fill": "dash", "dash": [4, 4]}
INTERVAL_STYLE = {
    "matcher": {"id": "byFrameRefID", "options": "B"},
    "properties": [
        {"id": "custom.lineStyle", "value": THIN},
        {"id": "custom.showPoints", "value": "never"},
        {"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}},
    ],
}
SEVERITY_TEXT = "An effect over its tolerance: below 1 it is too small to matter, however sure it is."
EVER_SEEN = "that ever had live traffic; the latest thousand."
TWELVE = "The twelve with the largest values are shown."


def model_dashboard(model: Row, page_url: str = "") -> Json:
    """One model: its traffic, its inputs, and how good its answers were, by version and server."""
    environment, name = str(model["environment"]), str(model["model"])
    this = f"environment = {literal(environment)} AND model = {literal(name)}"
    panels = [*_traffic(this, model), *_inputs(this, model), *_outcomes(this, str(model["task"]))]
    title = name if environment == USUAL_ENVIRONMENT else f"{name} ({environment})"
    owner = f" Owner: {model['owner']}." if model.get("owner") else ""
    text = f"Model {name} in environment {environment}, {model['task']}.{owner}"
    marks = moments("Releases", query("release_marks", scope=this))
    return dashboard(uid(environment, name), title, text, panels, _variables(this), marks, page_url, _hours(model))


def _hours(model: Row) -> int:
    """A day, and as much more as the newest window of labels lies behind."""
    behind: int = model.get("label_delay_seconds", 0) + max(model.get("windows_seconds", ()), default=0)
    return 24 + math.ceil(behind / 3600)


def _variables(this: str) -> list[Json]:
    return [
        variable("version", "Version", f"Versions {EVER_SEEN}", query("served", scope=this, column="version")),
        variable("server", "Server", f"Servers {EVER_SEEN}", query("served", scope=this, column="server")),
        variable("feature", "Feature", "Inputs, and the model's outputs with an @.", query("features", model=this)),
        variable(
            "window",
            "Window",
            "The length of the windows whose findings are shown.",
            query("window_lengths", scope=this),
            several=False,
        ),
    ]


def _traffic(this: str, model: Row) -> Iterator[Json]:
    served = f"{this} AND {VERSION} AND {SERVER}"
    everything = f"{served} AND segment = ''"
    latest = query("latest_findings", scope=this)
    yield stats("In this time", "Live traffic of the model.", query("totals", scope=served), [SHARE_OF_ERRORS])
    yield table(CHANGES, CHANGES_TEXT, query("changes", latest_findings=latest), CHANGE_COLUMNS)
    yield heading("Traffic")
    for what in ("version", "server"):
        yield time_series(
            f"Requests per minute, by {what}",
            "Live requests; what was sampled away by the pods is counted in.",
            query("requests", scope=everything, series=what),
            stacked=True,
        )
    yield time_series(
        "Latency, by version",
        "Median and 95th percentile of live requests, from the kept rows and their weights.",
        query("latency", scope=served, series="version"),
        unit="ms",
        legend="${__field.labels.series} ${__field.name}",
    )
    yield time_series(
        "Share of errors, by version",
        "Requests with the status error.",
        query("errors", scope=served, series="version"),
        share=True,
    )
    for segment in sorted(model.get("segments") or ()):
        of_segment = f"{served} AND startsWith(segment, {literal(f'{segment}=')})"
        yield time_series(
            f"Requests per minute, by {segment}",
            "Live requests that name this segment.",
            query("requests", scope=of_segment, series="segment"),
            stacked=True,
        )
    yield table(
        "Versions on servers",
        "Every version that a server showed in this time. It serves if nothing else followed it there and it was seen "
        "in the last hour before the end of this time.",
        query("places", scope=f"{this} AND {SERVER}", shown=VERSION),
    )
    yield table("Releases", "What people or pipelines said was released.", query("releases", scope=this))


def _inputs(this: str, model: Row) -> Iterator[Json]:
    findings = f"{this} AND {WINDOW}"
    yield heading("Inputs and outputs")
    yield time_series(
        "Drift, by feature",
        f"How far each feature is from its reference. {SEVERITY_TEXT} {TWELVE}",
        _drift(findings, "severity"),
        limit=1,
        points=True,
    )
    yield time_series(
        "Distance from the reference, by feature",
        f"Jensen-Shannon distance: 0 is alike, 1 has nothing in common. Few rows alone give some distance. {TWELVE}",
        _drift(findings, "value"),
        points=True,
    )
    if "numeric" in model["features"].values():
        yield time_series(
            "Movement of numbers, by feature",
            f"Wasserstein distance from the reference, in standard deviations of it. {TWELVE}",
            _drift(findings, effect("wasserstein_sd")),
            points=True,
        )
    if model["features"]:
        rows = query("unusable", scope=f"{this} AND {VERSION} AND {SERVER}", model=this, features=FEATURE)
        yield time_series(
            "Missing or unusable values, by feature",
            f"The share of kept rows without a value of the feature's kind. {TWELVE}",
            query("largest", rows=rows, column="missing"),
            share=True,
        )
    yield _differing("Servers unlike their fleet", "server_outlier", "server", f"{findings} AND {VERSION} AND {SERVER}")
    yield _differing("Versions unlike the one before", "version_contrast", "version", f"{findings} AND {VERSION}")


def _drift(findings: str, amount: str) -> str:
    rows = query("drift", scope=f"{findings} AND {OF_ANY_VERSION} AND {FEATURE}", amount=amount)
    return query("largest", rows=rows, column="drift")


def _differing(title: str, detector: str, series: str, findings: str) -> Json:
    return time_series(
        title,
        f"The largest difference among all features, in the same window. {SEVERITY_TEXT}",
        query("severity", scope=findings, detector=literal(detector), series=series),
        limit=1,
        points=True,
    )


def _outcomes(this: str, task: str) -> list[Json]:
    findings = f"{this} AND {WINDOW} AND {VERSION}"
    classifies = task == "classification"
    measured = query("accuracy", scope=findings, columns="value AS accuracy", statuses="'measured'")
    interval = query("accuracy", scope=findings, columns="low, high", statuses="'measured'")
    coverage = f"{effect('label_coverage')} AS coverage"
    return [
        heading("Outcomes"),
        time_series(
            "Accuracy, by version" if classifies else "Mean absolute error, by version",
            "Of the predictions whose label came in time, with its 95 % interval (dashed), at the end of their window.",
            measured,
            interval,
            share=classifies,
            points=True,
            overrides=[INTERVAL_STYLE],
        ),
        time_series(
            "Label coverage, by version",
            "The share of predictions whose label is known; the accuracy says nothing about the rest.",
            query("accuracy", scope=findings, columns=coverage, statuses="'measured', 'not_enough_data'"),
            share=True,
            points=True,
        ),
    ]
