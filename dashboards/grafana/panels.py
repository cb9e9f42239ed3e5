"""The parts that dashboards are made of, as Grafana's Classic model (schema version 42) writes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

Json = dict[str, Any]
DATASOURCE = {"type": "grafana-clickhouse-datasource", "uid": "telltale-clickhouse"}
SCHEMA_VERSION = 42
TAG = "telltale"
UID_PREFIX = "telltale-"
WIDTH = 24
MINUTE = "1m"
"""Profiles count whole minutes; a shorter interval would show gaps."""
LONGEST_TITLE = 150
TIME_SERIES, TABLE = (0, "timeseries"), (1, "table")
NOT_PLAIN = re.compile(r"[^\w .:@-]")


def query(name: str, **parts: str) -> str:
    """The SQL in ``queries/NAME.sql`` with its ``{parts}`` filled in."""
    text = files("dashboards.grafana").joinpath("queries", f"{name}.sql").read_text("utf-8").strip()
    for key, part in parts.items():
        text = text.replace(f"{{{key}}}", part)
    return text


def literal(text: str) -> str:
    r"""An SQL string in which neither ClickHouse nor Grafana finds anything to interpret.

    Beside quotes and backslashes that is the ``$`` and ``[`` of Grafana's variables and macros: whatever is not plain
    stands as the bytes of its UTF-8.

    >>> print(literal("rate's $name"))
    'rate\x27s \x24name'
    """
    return "'" + NOT_PLAIN.sub(lambda c: "".join(f"\\x{b:02X}" for b in c[0].encode("utf-8", "replace")), text) + "'"


def chosen(variable: str, column: str) -> str:
    """The rows that a variable with several values asks for. Its values are hexadecimal, so none needs quoting."""
    return f"has([${{{variable}:singlequote}}], hex({column}))"


def effect(name: str) -> str:
    """One of a finding's effect sizes; NaN where it has none of that name."""
    return f"if(has(effect_names, '{name}'), effect_values[indexOf(effect_names, '{name}')], nan)"


def uid(environment: str, model: str) -> str:
    """The uid of a model's dashboard: always the same, and not longer than the 40 characters Grafana allows.

    ``queries/models.sql`` makes the same, for the links of the overview.
    """
    return UID_PREFIX + hashlib.sha256(f"{environment}\x1f{model}".encode()).hexdigest()[:24]


def target(sql: str, form: tuple[int, str] = TIME_SERIES, ref: str = "A") -> Json:
    """One query of a panel."""
    number, word = form
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorType": "sql",
        "rawSql": sql,
        "format": number,
        "queryType": word,
    }


def time_series(
    title: str,
    description: str,
    *queries: str,
    unit: str = "short",
    legend: str = "${__field.labels.series}",
    width: int = 12,
    stacked: bool = False,
    share: bool = False,
    limit: float | None = None,
    points: bool = False,
    overrides: Sequence[Json] = (),
) -> Json:
    """A panel of lines over time, one for each ``series`` of its queries.

    share
        The values are from 0 to 1.
    limit
        Where a line says "from here on it matters".
    points
        There is a value for each window, not for each moment: points are shown, and lines go from one to the next.
    """
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 0,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "showPoints": "always" if points else "auto",
        "pointSize": 5,
        "spanNulls": points,
        "axisPlacement": "auto",
        "thresholdsStyle": {"mode": "off" if limit is None else "dashed"},
    }
    defaults: Json = {
        "unit": "percentunit" if share else unit,
        "displayName": legend,
        "color": {"mode": "palette-classic-by-name"},
        "custom": custom,
        "thresholds": _steps(limit),
        "min": 0,
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    targets = [target(sql, TIME_SERIES, chr(ord("A") + i)) for i, sql in enumerate(queries)]
    return _panel("timeseries", title, description, targets, defaults, options, overrides, width, 8)


def table(
    title: str, description: str, sql: str, overrides: Sequence[Json] = (), width: int = WIDTH, height: int = 8
) -> Json:
    """A panel that shows rows as they are."""
    defaults = {
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        "color": {"mode": "thresholds"},
        "thresholds": _steps(None),
    }
    options = {"showHeader": True, "cellHeight": "sm", "frameIndex": 0}
    return _panel("table", title, description, [target(sql, TABLE)], defaults, options, overrides, width, height)


def stats(title: str, description: str, sql: str, overrides: Sequence[Json] = ()) -> Json:
    """A panel that shows the numbers of one row in large type."""
    defaults = {"color": {"mode": "thresholds"}, "thresholds": _steps(None), "unit": "short"}
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "/.*/", "values": False},
        "colorMode": "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value_and_name",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    return _panel("stat", title, description, [target(sql, TABLE)], defaults, options, overrides, WIDTH, 4)


def heading(title: str) -> Json:
    """A line between groups of panels."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": WIDTH, "h": 1}}


def column(name: str, **properties: Any) -> Json:
    """How the column of that name is shown: properties as Grafana names them; ``custom_x`` stands for ``custom.x``."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": k.replace("custom_", "custom."), "value": v} for k, v in properties.items()],
    }


def red_from(name: str, limit: float) -> Json:
    """Marks the cells of a column that reach a limit."""
    return column(name, thresholds=_steps(limit), custom_cellOptions={"type": "color-text"}, decimals=2)


def variable(name: str, label: str, description: str, sql: str, *, several: bool = True) -> Json:
    """A choice above the panels: the query gives values and their texts. Of several, all are taken at first."""
    everything = {"text": ["All"], "value": ["$__all"], "selected": True}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "query": {"editorType": "sql", "rawSql": sql, "format": TABLE[0], "queryType": TABLE[1], "refId": name},
        "current": everything if several else {"text": "", "value": ""},
        "includeAll": several,
        "multi": several,
        "allowCustomValue": False,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 0,
        "hide": 0,
        "skipUrlSync": False,
    }


def moments(name: str, sql: str) -> Json:
    """Moments to be marked in every panel, beside those that people mark in Grafana itself."""
    builtin = {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "type": "dashboard",
    }
    ours = {"name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": "purple"}
    return {"list": [builtin, {**ours, "target": target(sql, TABLE, "Anno")}]}


def dashboard(
    uid: str,
    title: str,
    description: str,
    panels: Iterable[Json],
    variables: Sequence[Json],
    marks: Json,
    page_url: str,
    hours: int = 24,
) -> Json:
    """A whole dashboard. Panels are numbered and placed in their order.

    hours
        How much time it shows until somebody chooses another range.
    """
    return {
        "id": None,
        "uid": uid,
        "title": title[:LONGEST_TITLE],
        "description": description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": f"now-{hours}h", "to": "now"},
        "refresh": "5m",
        "timezone": "browser",
        "links": _links(page_url),
        "annotations": marks,
        "templating": {"list": list(variables)},
        "panels": _placed(panels),
    }


def _links(page_url: str) -> list[Json]:
    shared = {"icon": "external link", "tooltip": "", "includeVars": False, "keepTime": True, "targetBlank": False}
    all_of_ours = {"type": "dashboards", "title": "Telltale", "tags": [TAG], "asDropdown": True, "url": ""}
    page = {"type": "link", "title": "Telltale's page", "tags": [], "asDropdown": False, "url": page_url}
    return [{**shared, **all_of_ours}, *([{**shared, **page, "keepTime": False}] if page_url else [])]


def _panel(
    kind: str,
    title: str,
    description: str,
    targets: Sequence[Json],
    defaults: Json,
    options: Json,
    overrides: Sequence[Json],
    width: int,
    height: int,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "interval": MINUTE,
        "targets": list(targets),
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
        "gridPos": {"w": width, "h": height},
    }


def _placed(panels: Iterable[Json]) -> list[Json]:
    """The panels side by side, as many as fit, the last of each row widened to its end; with their numbers."""
    rows: list[list[Json]] = []
    for panel in panels:
        if not rows or sum(p["gridPos"]["w"] for p in (*rows[-1], panel)) > WIDTH:
            rows.append([])
        rows[-1].append(panel)
    placed: list[Json] = []
    y = 0
    for row in rows:
        x = 0
        for panel in row:
            size = panel["gridPos"]
            width = WIDTH - x if panel is row[-1] else size["w"]
            placed.append({"id": len(placed) + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": size["h"]}})
            x += width
        y += max(p["gridPos"]["h"] for p in row)
    return placed


def _steps(limit: float | None) -> Json:
    above = [] if limit is None else [{"color": "red", "value": limit}]
    return {"mode": "absolute", "steps": [{"color": "text" if above else "green", "value": None}, *above]}
