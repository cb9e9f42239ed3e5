"""Removing what is kept of single predictions, for people who ask for it. Counts stay: they tell of nobody."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import polars as pl

from monitor.columns import redact
from monitor.registry import Model
from monitor.store import Store
from monitor.store.literals import render

TABLES = ("labels", "features", "predictions")
"""In this order: by the predictions it is known which ones are about somebody, so that what fails can be done again."""
GONE = (
    "environment = {environment:String} AND model = {model:String} AND hex(SHA256(prediction_id)) IN "
    "(SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})"
)

TRUSTED = "SETTINGS allow_nondeterministic_mutations = 1"
"""Replicas refuse to delete by a question to another table, as they might differ; this one only ever grows."""


class Forgotten:
    """Which predictions were forgotten, kept at hand: no row of them is written again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashes: Mapping[tuple[str, str], set[str]] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what was forgotten, also by other processes."""
        hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
        for environment, model, id_hash in self._store.query("forgotten_ids").iter_rows():
            hashes[environment, model].add(id_hash)
        self._hashes = dict(hashes)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many predictions of each model were forgotten."""
        return {place: len(hashes) for place, hashes in self._hashes.items()}

    def left_out(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of predictions or labels, without those of forgotten predictions."""
        if not self._hashes or rows.is_empty():
            return rows
        places = rows.select("environment", "model").unique().rows()
        for environment, model in self._hashes.keys() & set(places):
            here = (pl.col("environment") == environment) & (pl.col("model") == model)
            hashes = self._hashes[environment, model]
            ids = rows.filter(here)["prediction_id"].unique().to_list()
            gone = [i for i in ids if _hash(i) in hashes]
            if gone:
                rows = rows.filter(~(here & pl.col("prediction_id").is_in(gone)))
        return rows


def forget_predictions(store: Store, forgotten: Forgotten, model: Model, ids: Sequence[str], now: datetime) -> int:
    """Remove the rows of predictions, by their ids as they came. Gives of how many there were some."""
    return _forget(store, forgotten, model, _as_kept(model, "prediction_id", ids), now)


def forget_entity(store: Store, forgotten: Forgotten, model: Model, entity_id: str, now: datetime) -> int:
    """Remove the rows of all predictions about somebody that are there. Later ones are kept again."""
    (kept,) = _as_kept(model, "entity_id", [entity_id])
    asked = {"environment": model.environment, "model": model.name}
    ids = store.query("ids_of_entity", **asked, entity_id=kept)["prediction_id"].to_list()
    return _forget(store, forgotten, model, ids, now)


def remove_forgotten(store: Store, environment: str, model: str) -> None:
    """Remove the rows of forgotten predictions, after the auditor was told. Can be done again."""
    place = {"environment": environment, "model": model}
    hours = store.query("forgotten_rows", **place)
    store.insert("batch_hours", hours.with_columns(**{name: pl.lit(value) for name, value in place.items()}))
    store.insert("batches", store.query("forgotten_labels", **place))
    for table in TABLES:
        store.execute(render(f"DELETE FROM {table} WHERE {GONE} {TRUSTED}", place))  # noqa: S608 - our own words


def _forget(store: Store, forgotten: Forgotten, model: Model, ids: Iterable[str], now: datetime) -> int:
    rows = pl.DataFrame({"id_hash": [_hash(i) for i in ids]}, {"id_hash": pl.String}).with_columns(
        environment=pl.lit(model.environment), model=pl.lit(model.name), forgotten=pl.lit(now)
    )
    store.insert("forgotten", rows)
    forgotten.refresh()
    known = store.query("known_ids", environment=model.environment, model=model.name)["predictions"][0]
    remove_forgotten(store, model.environment, model.name)
    return int(known)


def _hash(prediction_id: str) -> str:
    return hashlib.sha256(prediction_id.encode("utf-8", "surrogatepass")).hexdigest().upper()


def _as_kept(model: Model, field: str, values: Sequence[str]) -> list[str]:
    """The values as the store has them, where the model's configuration has them hashed."""
    events = [{field: value} for value in values]
    if field in model.spec.privacy.hash:
        redact(events, model.spec)
    return [event[field] for event in events]
