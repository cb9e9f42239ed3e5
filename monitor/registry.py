"""What is known of each model: its spec (declared or inferred), its layout and its references.

It is kept in the store, where the other processes of a service see it, and cached here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import structlog

from detectors.layout import Counts, Kind, Layout
from monitor.columns import infer_features, infer_task
from monitor.config import Config, ConfigError, FeatureSpec, ModelSpec
from monitor.decode import Fields
from monitor.store import Store, StoreError
from monitor.store.literals import literal, quoted

LONGEST_VIEW_NAME = 80
VIEW_COLUMNS = {
    **{n: n for n in ("timestamp", "version", "server", "role", "prediction_id", "weight")},
    "@prediction": "label",
    "@score": "score",
    "@latency": "latency_ms",
    "@failed": "failed",
}
"""What a view shows beside the features, and the column it comes from."""
log = structlog.get_logger()


class UnknownModelError(LookupError):
    """Nobody declared the model and no event of it has come in. The message names the models there are."""


@dataclass(frozen=True)
class Reference:
    """Counts that windows are compared with. An empty version stands for all versions.

    segments
        The counts of declared segments such as ``plan=vip``, where the reference can tell them apart.
    """

    name: str
    version: str
    counts: Counts
    segments: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One model in one environment."""

    environment: str
    name: str
    spec: ModelSpec
    layout: Layout | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)
    """By version; '' is for all versions."""
    since: datetime | None = None
    """When the first of it arrived. Windows before that are history and judged only when asked for."""

    @functools.cached_property
    def schema_id(self) -> int:
        """A hash of the features' names, kinds and order: what the positions in feature rows mean."""
        names = json.dumps([self.spec.num_names, self.spec.cat_names], ensure_ascii=False)
        return int.from_bytes(hashlib.sha256(names.encode()).digest()[:8], "big")


class Registry:
    """The models, kept in the store and cached here. Safe to use from several threads."""

    def __init__(self, store: Store, config: Config, now: datetime) -> None:
        self._store = store
        self._config = config
        self._lock = threading.RLock()
        self._models: dict[tuple[str, str], Model] = {}
        self._schemas: set[tuple[str, str, int]] = set()
        self._load(now)

    def models(self) -> list[Model]:
        """All models that have sent events or have a reference, and all declared ones, by name."""
        with self._lock:
            seen = {name for _, name in self._models}
            idle = [Model("production", name, spec) for name, spec in self._config.models.items() if name not in seen]
            return sorted((*self._models.values(), *idle), key=lambda m: (m.environment, m.name))

    def get(self, environment: str, name: str) -> Model:
        """A model. Raises UnknownModelError."""
        with self._lock:
            model = self._models.get((environment, name))
            if model is not None:
                return model
            if name in self._config.models:
                return Model(environment, name, self._config.models[name])
        known = ", ".join(sorted({m.name for m in self.models()})) or "none yet"
        raise UnknownModelError(f"model {name!r} is not known in environment {environment!r}; known: {known}")

    def find(self, environment: str, name: str) -> Model | None:
        """A model that has sent events or has a reference."""
        with self._lock:
            return self._models.get((environment, name))

    def refresh(self, now: datetime) -> None:
        """See what other processes have learned."""
        with self._lock:
            self._load(now)

    def learn(self, environment: str, name: str, events: Sequence[Fields], arrived: datetime) -> Model:
        """The model of some prediction events; an undeclared one is registered, and its features are inferred.

        Inferred features can grow until the layout is made.
        """
        with self._lock:
            if self._config.store.clickhouse and (environment, name) not in self._models:
                self._load(arrived)  # another process may know it
            declared = self._config.models.get(name)
            model = self._models.get((environment, name)) or Model(environment, name, declared or _inferred(events))
            if model.layout is None and (declared is None or not declared.features):
                known = {n: f.kind for n, f in model.spec.features.items()}
                kinds = infer_features([e["features"] for e in events], known)
                if len(kinds) > len(known):
                    model = replace(model, spec=with_features(model.spec, kinds))
            if model.since is None or arrived < model.since:
                row = {"environment": [environment], "model": [name], "arrived": [arrived]}
                self._store.insert("sightings", pl.DataFrame(row))
                model = replace(model, since=arrived)
            return self._keep(model, arrived)

    def save_layout(self, model: Model, layout: Layout, now: datetime) -> Model:
        """Keep the model's layout, for ever. If it has one already, that one stays."""
        with self._lock:
            current = self._models.get((model.environment, model.name), model)
            if current.layout is not None:
                return current
            row = {
                "environment": [model.environment],
                "model": [model.name],
                "layout_id": [layout.id],
                "cells": [layout.to_json()],
                "added": [now],
            }
            self._store.insert("layouts", pl.DataFrame(row))
            return self._keep(replace(current, spec=model.spec, layout=layout), now)

    def save_reference(self, model: Model, reference: Reference, now: datetime) -> Model:
        """Keep a reference; it takes the place of an earlier one for the same version."""
        with self._lock:
            current = self._models.get((model.environment, model.name), model)
            if current.layout is None:
                raise ValueError("a reference needs a layout to count over")
            of_segments = [count for counts in reference.segments.values() for count in counts.tolist()]
            row = {
                "environment": [model.environment],
                "model": [model.name],
                "version": [reference.version],
                "name": [reference.name],
                "layout_id": [current.layout.id],
                "counts": [reference.counts.astype(np.uint64)],
                "segments": pl.Series([list(reference.segments)], dtype=pl.List(pl.String)),
                "segment_counts": pl.Series([of_segments], dtype=pl.List(pl.UInt64)),
                "added": [now],
            }
            self._store.insert("model_references", pl.DataFrame(row))
            references = {**current.references, reference.version: reference}
            return self._keep(replace(current, references=references), now)

    def _keep(self, model: Model, now: datetime) -> Model:
        key = (model.environment, model.name)
        if (*key, model.schema_id) not in self._schemas:
            row = {
                "environment": [model.environment],
                "model": [model.name],
                "schema_id": [model.schema_id],
                "num_names": [list(model.spec.num_names)],
                "cat_names": [list(model.spec.cat_names)],
                "task": [model.spec.task],
                "added": [now],
            }
            names = pl.List(pl.String)
            frame = pl.DataFrame(row, schema_overrides={"schema_id": pl.UInt64})
            self._store.insert("schemas", frame.cast({"num_names": names, "cat_names": names}))
            self._schemas.add((*key, model.schema_id))
            try:
                self._make_view(model)
            except StoreError as error:  # a view is for people; events must come in without it
                log.error("no view for a model", model=model.name, reason=str(error))
        self._models[key] = model
        return model

    def _load(self, now: datetime) -> None:
        known = self._store.select("SELECT DISTINCT environment, model, schema_id FROM schemas")
        self._schemas = set(known.iter_rows())
        sightings = self._store.query("first_sightings").iter_rows()
        since = {(environment, name): arrived for environment, name, arrived in sightings}
        seen: dict[tuple[str, str], Model] = {}
        for row in self._store.query("known_schemas").iter_rows(named=True):
            key = (row["environment"], row["model"])
            declared = self._config.models.get(row["model"])
            model = seen.get(key) or Model(*key, declared or _of_task(row["task"]), since=since.get(key))
            if declared is None or not declared.features:  # several processes may each have seen some of the features
                kinds = {n: f.kind for n, f in model.spec.features.items()}
                for names, kind in ((row["num_names"], Kind.NUMERIC), (row["cat_names"], Kind.CATEGORICAL)):
                    kinds |= {n: kind for n in names if n not in kinds}
                model = replace(model, spec=with_features(model.spec, kinds))
            seen[key] = model
        for row in self._store.query("first_layouts").iter_rows(named=True):
            key = (row["environment"], row["model"])
            if key in seen:
                seen[key] = replace(seen[key], layout=_layout(row["cells"]))
        for row in self._store.query("latest_references").iter_rows(named=True):
            key = (row["environment"], row["model"])
            compared = seen.get(key)
            if compared is not None and compared.layout is not None and compared.layout.id == row["layout_id"]:
                reference = _reference(row)
                references = {**compared.references, reference.version: reference}
                seen[key] = replace(compared, references=references)
        self._models.update(seen)  # at once: a model without its layout would be taken for a new one
        for model in list(self._models.values()):
            _check_kinds(model)
            self._keep(model, now)  # the configuration may name other features than it did

    def _make_view(self, model: Model) -> None:
        """A view with named, typed columns for people who write SQL."""
        schemas = self._store.query("model_schemas", environment=model.environment, model=model.name)
        columns = []
        for array, names_column, absent in (("num", "num_names", "nan"), ("cat", "cat_names", "NULL")):
            for name in model.spec.num_names if array == "num" else model.spec.cat_names:
                branches = [
                    f"schema_id = {row['schema_id']}, {array}[{row[names_column].index(name) + 1}]"
                    for row in schemas.iter_rows(named=True)
                    if name in row[names_column]
                ]
                shown = f"{name} (feature)" if name in VIEW_COLUMNS or not name else name
                columns.append(f"multiIf({', '.join(branches)}, {absent}) AS {quoted(shown)}")
        given = [f"{source} AS {quoted(name)}" for name, source in VIEW_COLUMNS.items()]
        where = f"environment = {literal(model.environment)} AND model = {literal(model.name)}"
        # A feature may be called like a column of the table; the column is meant where the view computes.
        rows = (
            f"SELECT {', '.join((*given, *columns))} FROM features FINAL WHERE {where} "  # noqa: S608 - all quoted
            "SETTINGS prefer_column_name_to_alias = 1"
        )
        self._store.execute(f"CREATE OR REPLACE VIEW {quoted(view_name(model))} AS {rows}")


@functools.lru_cache(4096)
def _layout(cells: str) -> Layout:
    return Layout.from_json(cells)


def _reference(row: Mapping[str, Any]) -> Reference:
    segments, size = row["segments"], len(row["counts"])
    parts = np.array(row["segment_counts"], np.int64).reshape(len(segments), size)
    counts = np.array(row["counts"], np.int64)
    return Reference(row["name"], row["version"], counts, dict(zip(segments, parts, strict=True)))


def _check_kinds(model: Model) -> None:
    """A feature's cells were made once; the configuration cannot change its kind under the same name."""
    for name, feature in model.spec.features.items():
        cells = model.layout.by_name.get(name) if model.layout else None
        if cells is not None and cells.kind is not feature.kind:
            raise ConfigError(
                f"models.{model.name}.features.{name}: is {feature.kind} in the configuration, but was first seen as "
                f"{cells.kind} and is counted so; give it another name"
            )


def _inferred(events: Sequence[Fields]) -> ModelSpec:
    return _of_task(infer_task([e.get("prediction") for e in events]))


def _of_task(task: str) -> ModelSpec:
    return ModelSpec.model_validate({"task": task})


def with_features(spec: ModelSpec, kinds: Mapping[str, Kind]) -> ModelSpec:
    """The spec with features of these kinds; what was declared of a feature stays."""
    features = {name: spec.features.get(name, FeatureSpec(kind=kind)) for name, kind in kinds.items()}
    return spec.model_copy(update={"features": features})


def view_name(model: Model) -> str:
    """The name of a model's view: ``model_NAME``, with what SQL would need quotes for replaced."""
    name = model.name if model.environment == "production" else f"{model.environment}.{model.name}"
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)[:LONGEST_VIEW_NAME]
    exact = f"{model.environment}\x1f{model.name}".encode()
    return f"model_{plain}" if plain == name else f"model_{plain}_{zlib.crc32(exact):08x}"
