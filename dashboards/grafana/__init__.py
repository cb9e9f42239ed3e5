"""Grafana: a dashboard of the fleet and one of each model, over the tables in ClickHouse."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dashboards.grafana.model import model_dashboard
from dashboards.grafana.overview import fleet_dashboard
from dashboards.grafana.panels import Json
from dashboards.words import Row


def build(models: Iterable[Row], page_url: str = "") -> list[Json]:
    """The dashboards: the fleet's, then one for each model. The same models give the same dashboards.

    models
        A mapping for each: ``environment``, ``model``, ``task``, ``owner``, ``features`` (kinds by name) and
        ``segments`` (their names).
    page_url
        Where people reach Telltale's own page; without it no link leads there.
    """
    ordered = sorted(models, key=lambda m: (str(m["environment"]), str(m["model"])))
    return [fleet_dashboard(page_url), *(model_dashboard(m, page_url) for m in ordered)]


def as_file(dashboard: Json) -> str:
    """A dashboard as the text of a file that Grafana can load; the same dashboard gives the same bytes."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
