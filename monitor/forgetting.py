"""Removing what is kept of single predictions, for people who ask for it. Counts stay: they tell of nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from monitor.columns import redact
from monitor.registry import Model
from monitor.store import Store
from monitor.store.literals import render

TABLES = ("predictions", "features", "labels")
GONE = (
    "environment = {environment:String} AND model = {model:String} AND hex(SHA256(prediction_id)) IN "
    "(SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})"
)

TRUSTED = "SETTINGS allow_nondeterministic_mutations = 1"
"""Replicas refuse to delete by a question to another table, as they might differ; this one only ever grows."""


def forget_predictions(store: Store, model: Model, ids: Sequence[str], now: datetime) -> int:
    """Remove the rows of predictions, by their ids as they came. Gives of how many there were some."""
    return _forget(store, model, _as_kept(model, "prediction_id", ids), now)


def forget_entity(store: Store, model: Model, entity_id: str, now: datetime) -> int:
    """Remove the rows of all predictions about somebody that are there. Later ones are kept again."""
    (kept,) = _as_kept(model, "entity_id", [entity_id])
    asked = {"environment": model.environment, "model": model.name}
    ids = store.query("ids_of_entity", **asked, entity_id=kept)["prediction_id"].to_list()
    return _forget(store, model, ids, now)


def remove_forgotten(store: Store, environment: str, model: str) -> int:
    """Remove the rows of forgotten predictions, and let the auditor know. Gives how many hours of batches had some.

    To be called when a batch was taken in again.
    """
    place = {"environment": environment, "model": model}
    counts = store.query("forgotten_rows", **place)
    for table in TABLES:
        store.execute(render(f"DELETE FROM {table} WHERE {GONE} {TRUSTED}", place))  # noqa: S608 - our own words
    unsigned = pl.col("prediction_rows", "feature_rows").cast(pl.UInt64)
    store.insert("batch_hours", counts.with_columns(unsigned, **{n: pl.lit(v) for n, v in place.items()}))
    return counts.height


def _forget(store: Store, model: Model, ids: Sequence[str], now: datetime) -> int:
    if not ids:
        return 0
    hashes = [hashlib.sha256(i.encode("utf-8", "surrogatepass")).hexdigest().upper() for i in ids]
    rows = pl.DataFrame({"id_hash": hashes}).with_columns(
        environment=pl.lit(model.environment), model=pl.lit(model.name), forgotten=pl.lit(now)
    )
    store.insert("forgotten", rows)
    known = store.query("known_ids", environment=model.environment, model=model.name)["predictions"][0]
    remove_forgotten(store, model.environment, model.name)
    return int(known)


def _as_kept(model: Model, field: str, values: Sequence[str]) -> list[str]:
    """The values as the store has them, where the model's configuration has them hashed."""
    events = [{field: value} for value in values]
    if field in model.spec.privacy.hash:
        redact(events, model.spec)
    return [event[field] for event in events]
