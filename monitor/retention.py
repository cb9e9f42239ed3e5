"""Removing what was kept for long enough.

Everything is removed by statements that name what goes, never by dropping whole partitions: a batch that comes in
meanwhile keeps what is not named. What is removed is written down first, so that nobody takes it for missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from monitor.config import Config, ModelSpec
from monitor.folding import GRACE, HOUR, fold, remove_old_sums, remove_sealed, seal, taken_in_twice
from monitor.reference import References
from monitor.registry import Model, Registry
from monitor.store import Store
from monitor.store.literals import literal, render

DAY = timedelta(days=1)
EPOCH = datetime.fromtimestamp(0, UTC)
OF_MODELS: Mapping[str, Mapping[str, str]] = {
    "rows": {"predictions": "timestamp", "features": "timestamp", "labels": "timestamp", "label_marks": "hour"},
    "hours": {
        "profile_marks": "hour",  # first: an hour without marks is not read
        "profile_folds": "hour",
        "profile_hours": "hour",
        "profile_seals": "hour",
        "sealed_batches": "hour",
        "profile_batches": "minute",
        "undeclared_keys": "minute",
    },
    "findings": {"findings": "end"},
}
"""What is kept of models: its tables, and in them the time that decides."""
COMMON: Mapping[str, Mapping[str, str]] = {
    "dead_letters": {"dead_letters": "received", "replayed_letters": "replayed"},
    "health": {"health": "timestamp"},
    "batches": {"batches": "received", "batch_hours": "hour", "imports": "imported"},
    "judgements": {"judgements": "watched_until"},
}
ARRIVED_LATELY = (
    """(source, batch) NOT IN (SELECT source, batch FROM batches WHERE received >= {lately:DateTime64(3, 'UTC')})"""
)
"""The counts of old hours that came in lately are still held against their batches."""
LATELY = timedelta(days=3)
Horizons = Mapping[tuple[str, str], datetime]
"""By environment and model, up to when something goes."""


def removed_until(store: Store, environment: str, model: str) -> dict[str, datetime]:
    """Up to when each kind of thing was removed of a model; of no model: what belongs to none."""
    return dict(store.query("removed_until", environment=environment, model=model).iter_rows())


class Keeper:
    """Removes what is past its time. Two of them at once do no harm."""

    def __init__(self, store: Store, registry: Registry, references: References, config: Config) -> None:
        self._store = store
        self._registry = registry
        self._references = references
        self._config = config

    def run(self, now: datetime, seen: datetime, judged: Callable[[Model], datetime]) -> dict[str, int]:
        """Roll up, remove, and give how many rows went, by table.

        seen
            Up to when all that arrived is taken in. What Kafka still holds counts as if it were to come now.
        judged
            Up to when the windows of a model are judged.
        """
        models = self._registry.models()
        self._roll_up(models, now, seen, judged)
        removed = {"profile_hours": remove_old_sums(self._store, now)}
        for what, tables in OF_MODELS.items() if models else ():
            horizons = {(m.environment, m.name): _midnight(seen - _kept(m.spec, what)) for m in models}
            self._write_down(what, horizons, now)
            for table, column in tables.items():
                conditions = [f"({_of_models(names, column, at)})" for at, names in _together(horizons)]
                removed[table] = removed.get(table, 0) + self._remove(table, " OR ".join(conditions))
        for what, until in self._common(now, models).items():
            self._write_down(what, {("", ""): until}, now)
            for table, column in COMMON[what].items():
                lately = f" AND {ARRIVED_LATELY}" if table == "batch_hours" else ""
                removed[table] = self._remove(table, f"{column} < {_time(until)}{lately}", lately=now - LATELY)
        self._reclaim(removed)
        return removed

    def _roll_up(
        self, models: Iterable[Model], now: datetime, seen: datetime, judged: Callable[[Model], datetime]
    ) -> None:
        """Make sums of old hours stand for their batches, and remove those."""
        hours, sealed = defaultdict(list), []
        for environment, name, hour, last_sealed in self._store.query("hours_with_batches", until=seen).iter_rows():
            hours[environment, name].append(hour)
            if EPOCH < last_sealed <= now - GRACE:
                sealed.append(hour)
        if sealed:
            remove_sealed(self._store, sealed, now - GRACE)
        due = []
        for model in models:
            until = min(seen - model.spec.retention.minutes, judged(model))
            old = [hour for hour in hours[model.environment, model.name] if hour + HOUR <= until]
            if old and model.layout is not None:  # else its events have no cells yet
                due.append((model, old))
        oldest = min((old[0] for _, old in due), default=now)
        twice = taken_in_twice(self._store, oldest - DAY, now + DAY)  # clocks may be off
        for model, old in due:
            place = (self._store, model.environment, model.name)
            self._references.complete(model, old[0], old[-1] + HOUR)
            fold(*place, old[0], old[-1] + HOUR, now)
            seal(*place, old, now - model.spec.retention.minutes, now, twice)

    def _common(self, now: datetime, models: Iterable[Model]) -> dict[str, datetime]:
        kept = {
            "dead_letters": self._config.retention.dead_letters,
            "health": self._config.retention.health,
            "batches": max([_kept(ModelSpec(), "hours"), *(_kept(m.spec, "hours") for m in models)]),
            "judgements": DAY,
        }
        return {what: _midnight(now - length) for what, length in kept.items()}

    def _write_down(self, what: str, horizons: Horizons, now: datetime) -> None:
        """Say up to when something is being removed, where that is later than it was."""
        known = {
            (environment, model): until
            for environment, model, until in self._store.select(
                "SELECT environment, model, max(until) AS until FROM removals WHERE what = {what:String} "
                "GROUP BY environment, model",
                what=what,
            ).iter_rows()
        }
        later = [(*place, at) for place, at in horizons.items() if at > known.get(place, EPOCH)]
        if later:
            named = pl.DataFrame(later, ["environment", "model", "until"], orient="row")
            self._store.insert("removals", named.with_columns(what=pl.lit(what), removed=pl.lit(now)))

    def _remove(self, table: str, where: str, **values: datetime) -> int:
        count = self._store.select(f"SELECT count() AS rows FROM {table} WHERE {where}", **values)  # noqa: S608 - our own words, and literals
        rows = int(count["rows"][0])
        if rows:
            trusted = "SETTINGS allow_nondeterministic_mutations = 1"
            self._store.execute(render(f"DELETE FROM {table} WHERE {where} {trusted}", values))  # noqa: S608 - the same
        return rows

    def _reclaim(self, tables: Iterable[str]) -> None:
        """Give disk space back: removed rows are only marked until their part is written anew for another reason."""
        names = ", ".join(map(literal, tables))
        parts = self._store.select(
            "SELECT table, partition_id, sum(rows) AS written FROM system.parts "  # noqa: S608 - our own names
            f"WHERE active AND database = currentDatabase() AND table IN ({names}) "
            "GROUP BY table, partition_id HAVING max(has_lightweight_delete) > 0"
        )
        for table, partition, written in parts.iter_rows():
            there = f"SELECT count() AS rows FROM {table} WHERE _partition_id = {literal(partition)}"  # noqa: S608 - the same
            if 2 * int(self._store.select(there)["rows"][0]) < written:
                self._store.execute(f"ALTER TABLE {table} APPLY DELETED MASK IN PARTITION ID {literal(partition)}")


def _kept(spec: ModelSpec, what: str) -> timedelta:
    kept = spec.retention
    return {"rows": spec.rows_kept, "hours": kept.hours, "findings": kept.findings}[what]


def _midnight(at: datetime) -> datetime:
    """The beginning of the day, so that little is removed often."""
    return max(EPOCH, EPOCH + (at - EPOCH) // DAY * DAY)


def _together(horizons: Horizons) -> Iterable[tuple[datetime, list[tuple[str, str]]]]:
    """The models by how far they go."""
    models = defaultdict(list)
    for place, at in horizons.items():
        models[at].append(place)
    return models.items()


def _of_models(places: Iterable[tuple[str, str]], column: str, until: datetime) -> str:
    named = ", ".join(f"({literal(environment)}, {literal(model)})" for environment, model in places)
    return f"{column} < {_time(until)} AND (environment, model) IN ({named})"


def _time(at: datetime) -> str:
    return render("{at:DateTime64(3, 'UTC')}", {"at": at})
