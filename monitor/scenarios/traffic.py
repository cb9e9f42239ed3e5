"""Made-up traffic: rows that follow a scenario, the same for the same seed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from monitor.scenarios.file import Change, FeatureValues, Scenario

HOUR = timedelta(hours=1)
REFERENCE = 2**32
"""Stands for the number of a step, in the seed of the reference."""
LATENCY_SPREAD = 0.3
CLASSES = ("no", "yes")
Event = dict[str, Any]


def reference_table(scenario: Scenario) -> pl.DataFrame:
    """Rows that are drawn like the traffic, with nothing changed: a column per feature, and the predictions."""
    rng = np.random.default_rng([scenario.seed, REFERENCE])
    rows = scenario.reference_rows
    columns = {name: _drawn(rng, values, rows).tolist() for name, values in scenario.traffic.features.items()}
    return pl.DataFrame({**columns, "prediction": _predictions(rng, scenario, rows).tolist()}, strict=False)


def events_between(scenario: Scenario, since: timedelta, until: timedelta) -> Iterator[tuple[timedelta, Event]]:
    """The predictions from one time to another, and the labels that they get, each with when it comes.

    Times count from the start. Every step draws from a seed of its own.
    """
    per_hour = scenario.traffic.rows_per_hour
    first, last = (round(per_hour * (at / HOUR)) for at in (since, until))
    rows = _Rows(scenario, first, last)
    for i in np.flatnonzero(rows.come):
        yield from rows.events(int(i))


class _Rows:
    """Some rows as columns: drawn as if nothing changed, and then changed."""

    def __init__(self, scenario: Scenario, first: int, last: int) -> None:
        traffic, count = scenario.traffic, last - first
        rng = np.random.default_rng([scenario.seed, first])
        self._scenario = scenario
        self._first = first
        self._at = (first + np.arange(count) + 0.5) / traffic.rows_per_hour
        self._server = rng.choice(list(traffic.servers), count)
        self._version = rng.choice(list(traffic.versions), count, p=list(traffic.versions.values()))
        self._segments = {n: rng.choice(list(of), count, p=list(of.values())) for n, of in traffic.segments.items()}
        self._features = {name: _drawn(rng, values, count) for name, values in traffic.features.items()}
        self._prediction = _predictions(rng, scenario, count)
        self._luck = {name: rng.random(count) for name in ("share", "rows", "errors", "accuracy")}
        self._noise = {name: rng.normal(size=count) for name in ("label_error", "latency_ms")}
        levels = {name: getattr(traffic, name) for name in ("accuracy", "label_error", "latency_ms", "errors")}
        self._levels = {n: np.full(count, v) for n, v in levels.items() if v is not None} | {"rows": np.ones(count)}
        for change in scenario.changes:
            self._apply(change)
        self.come = self._luck["rows"] < self._levels["rows"]

    def _apply(self, change: Change) -> None:
        here = self._where(change)
        effect, value = change.effect, getattr(change, change.effect)
        if not change.feature:
            self._levels[effect][here] = value
            return
        column = self._features[change.feature]
        share = value if effect == "missing" else 1.0 if change.share is None else change.share
        chosen = here & (self._luck["share"] < share)
        if effect == "missing":
            column[chosen] = None
        elif effect in ("stuck", "level"):
            column[chosen] = value
        else:
            valued = here & np.array([v is not None for v in column], np.bool_)
            column[valued] = column[valued] + value if effect == "shift" else column[valued] * value

    def _where(self, change: Change) -> NDArray[np.bool_]:
        here = self._at >= change.since / HOUR
        if change.until is not None:
            here &= self._at < change.until / HOUR
        if change.server:
            here &= self._server == change.server
        if change.version:
            here &= self._version == change.version
        if change.segment:
            name, _, value = change.segment.partition("=")
            here &= self._segments[name] == value
        return np.asarray(here, np.bool_)

    def events(self, i: int) -> Iterator[tuple[timedelta, Event]]:
        """The prediction of a row, and its label if it gets one."""
        scenario, traffic = self._scenario, self._scenario.traffic
        at = float(self._at[i]) * HOUR
        about = {"model": scenario.name, "prediction_id": f"row-{self._first + i}"}
        prediction = self._prediction[i].item()
        event = {
            "type": "prediction",
            **about,
            "timestamp": (scenario.start + at).timestamp(),
            "version": str(self._version[i]),
            "server": str(self._server[i]),
            "segments": {name: str(values[i]) for name, values in self._segments.items()},
            "features": {name: values[i] for name, values in self._features.items() if values[i] is not None},
            "prediction": prediction,
            "status": "error" if self._luck["errors"][i] < self._levels["errors"][i] else "ok",
        }
        if "latency_ms" in self._levels:
            noise = np.exp(LATENCY_SPREAD * self._noise["latency_ms"][i])
            event["latency_ms"] = float(self._levels["latency_ms"][i] * noise)
        yield at, event
        label = self._label(i, prediction)
        if label is not None:
            known = at + traffic.labels_after
            yield known, {"type": "label", **about, "timestamp": (scenario.start + known).timestamp(), "label": label}

    def _label(self, i: int, prediction: Any) -> Any:
        if "label_error" in self._levels:
            return prediction + float(self._levels["label_error"][i] * self._noise["label_error"][i])
        if "accuracy" in self._levels:
            right = self._luck["accuracy"][i] < self._levels["accuracy"][i]
            return prediction if right else CLASSES[prediction == "no"]
        return None


def _drawn(rng: np.random.Generator, values: FeatureValues, count: int) -> NDArray[np.object_]:
    levels: Mapping[str, float] = values.levels or {}
    if levels:
        drawn = rng.choice(list(levels), count, p=list(levels.values())).astype(object)
    else:
        drawn = rng.normal(values.mean or 0.0, values.sd or 0.0, count).astype(object)
    drawn[rng.random(count) < values.missing] = None
    return np.asarray(drawn, object)


def _predictions(rng: np.random.Generator, scenario: Scenario, count: int) -> NDArray[Any]:
    if scenario.spec.task == "regression":
        return rng.normal(size=count)
    return rng.choice(CLASSES, count)
