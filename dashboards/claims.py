"""What was found wrong, and that it is over, in one sentence for each kind of watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from dashboards.formats import decimal, milliseconds, number, share
from dashboards.markup import Content, Html, join
from dashboards.words import Row, feature_names, listed, model_and_place, model_of, name, only_where

ITS_INPUTS = "its inputs"
OBSERVED = ("schema", "silence", "fleet", "joint")
"""Watches of which what was seen is told in the words of the finding."""
LATE = ", found in rows that came late"
Teller = Callable[[Row, str], Content]


def claim(row: Row, watch: str, task: str = "") -> Html:
    """What a watch found, without a full stop. ``task`` tells the unit of an accuracy drop.

    >>> claim({"model": "credit", "server": "s3", "value": 0.4}, "health").count("40")
    1
    """
    tell = _CLAIMS.get(watch)
    if tell is not None:
        return join([tell(row, task), LATE if row.get("late") else ""])
    features = feature_names(row.get("features"))
    words = watch.replace("_", " ").capitalize()
    return join([words, " of " if words else "", model_and_place(row), [": ", features] if features else ""])


def over(row: Row, watch: str) -> Html:
    """That it is over: by what the windows say, or for the reason that the row gives."""
    if row.get("reason"):
        return join([watch.replace("_", " ").capitalize(), " of ", model_and_place(row), f" is over: {row['reason']}"])
    return join(_OVER[watch](row, ""))


def _features(row: Row) -> Html:
    return feature_names(row.get("features")) or join(ITS_INPUTS)


def _version(row: Row) -> Content:
    return ["Version ", name(row.get("version")), " of ", model_of(row)]


def _baseline(row: Row) -> Content:
    return ["version ", name(row.get("baseline_version"))]


def _server(row: Row) -> Content:
    return ["Server ", name(row.get("server"))]


def _served(row: Row) -> Content:
    return [["version ", name(row["version"]), " of "] if row.get("version") else "", model_of(row)]


def _drift(row: Row, _: str) -> Content:
    where = only_where(row)
    told = ["Drift in ", model_and_place(row), ": ", _features(row), " changed against what is usual"]
    return [*told, ", ", where] if where else told


def _drift_over(row: Row, _: str) -> Content:
    verb = "is" if len(listed(row.get("features"))) == 1 else "are"
    return ["Drift in ", model_and_place(row), " is over: ", _features(row), f" {verb} as usual again"]


def _gradual_drift(row: Row, _: str) -> Content:
    return ["Slow drift in ", model_and_place(row), ": for days, ", _features(row), " leaned to one side"]


def _server_outlier(row: Row, _: str) -> Content:
    where = only_where(row)
    told = [_server(row), " differs from the others that run ", _served(row), ": ", _features(row)]
    return [*told, ", ", where] if where else told


def _version_contrast(row: Row, _: str) -> Content:
    where = only_where(row)
    told = [_version(row), " differs from ", _baseline(row), ": ", _features(row)]
    return [*told, ", ", where] if where else told


def _accuracy_drop(row: Row, task: str) -> Content:
    value = number(row.get("value"))
    if value is None:
        return [_version(row), " is worse than ", _baseline(row)]
    if task == "classification":
        points = f"{decimal(round(100 * value, 1))} percentage points"
        return [_version(row), f" is {points} less accurate than ", _baseline(row)]
    return [_version(row), f" has a mean loss {decimal(value)} above that of ", _baseline(row)]


def _joint(row: Row, _: str) -> Content:
    return [
        "Inputs of ",
        model_and_place(row),
        " go together otherwise",
        f": {row['reason']}" if row.get("reason") else "",
    ]


def _latency(row: Row, _: str) -> Content:
    slow = f"its 95th percentile is {milliseconds(row.get('value'))}, over the limit"
    return [model_and_place(row), " is slow: ", slow]


def _errors(row: Row, _: str) -> Content:
    return [model_and_place(row), f" fails too often: {share(row.get('value'))} of its requests, over the limit"]


def _health(row: Row, _: str) -> Content:
    return [_server(row), f" failed {share(row.get('value'))} of its health checks, over the limit"]


def _observed(watch: str, row: Row, _: str) -> Content:
    """What was seen stands in the row, in words."""
    return [watch.capitalize(), " of ", model_and_place(row), f": {row['reason']}" if row.get("reason") else ""]


_CLAIMS: Mapping[str, Teller] = {
    "drift": _drift,
    "gradual_drift": _gradual_drift,
    "server_outlier": _server_outlier,
    "version_contrast": _version_contrast,
    "accuracy_drop": _accuracy_drop,
    "latency": _latency,
    "errors": _errors,
    "health": _health,
    **{watch: partial(_observed, watch) for watch in OBSERVED},
    "joint": _joint,
}
_OVER: Mapping[str, Teller] = {
    "drift": _drift_over,
    "gradual_drift": lambda row, _: ["Slow drift in ", model_and_place(row), " is over: ", _features(row)],
    "server_outlier": lambda row, _: [_server(row), " is like the others that run ", _served(row), " again"],
    "version_contrast": lambda row, _: [_version(row), " is like ", _baseline(row), " again"],
    "accuracy_drop": lambda row, _: [_version(row), " is no longer worse than ", _baseline(row)],
    "joint": lambda row, _: ["Inputs of ", model_and_place(row), " go together as usual again"],
    "latency": lambda row, _: [model_and_place(row), " is no longer slow"],
    "errors": lambda row, _: [model_and_place(row), " no longer fails too often"],
    "health": lambda row, _: [_server(row), " answers its health checks again"],
    "schema": lambda row, _: ["The schema of ", model_and_place(row), " is as it was again"],
    "silence": lambda row, _: [model_and_place(row), " is no longer silent"],
    "fleet": lambda row, _: ["The fleet of ", model_and_place(row), " is as it should be again"],
}
VALUES: Mapping[str, str] = {
    **dict.fromkeys(("drift", "gradual_drift", "server_outlier", "version_contrast"), "Distance"),
    "accuracy_drop": "Added loss",
    "joint": "AUC",
    "latency": "95th percentile in ms",
    **dict.fromkeys(("errors", "health"), "Share that failed"),
    "schema": "Share of rows",
    "silence": "Rows expected",
    "fleet": "Rows",
}
"""What the value of each kind of watch is."""
WATCHES = tuple(_CLAIMS)
"""The kinds of watch that there is a sentence for."""
