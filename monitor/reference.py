"""Layouts and references: from a file, from a past window, or from a model's first rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from alerts.ledger import LedgerError
from detectors.layout import Column, Counts, FeatureCells, Kind, Layout, LayoutError, chosen_fifth, fit_layout
from monitor.columns import (
    LATENCY,
    PREDICTION,
    SCORE,
    PredictionColumns,
    frame_column,
    infer_features,
    level_column,
    number_column,
    prediction_columns,
    redact,
    segment_value,
)
from monitor.config import ModelSpec, ReferenceWindow
from monitor.decode import label_text
from monitor.folding import GoneError
from monitor.profile import profile_rows, write_profiles
from monitor.registry import Model, Reference, Registry, with_features
from monitor.store import Store
from monitor.windows import read_traffic

FIRST_ROWS = 10_000
ALL_ROWS = 2**62
log = structlog.get_logger()
READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, null_values=["", "?", "NA"], infer_schema_length=10_000),
    ".ndjson": pl.read_ndjson,
    ".jsonl": pl.read_ndjson,
}
OUTPUT_COLUMNS = {"prediction": PREDICTION, "score": SCORE}


class TableError(ValueError):
    """A file that cannot be read as a table. The message says which, why, and what can be read."""


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet, CSV or NDJSON file. In CSV, ``?``, ``NA`` and nothing are missing values.

    Raises TableError.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TableError(f"{path}: cannot tell its format; use a name that ends in {', '.join(READERS)}")
    try:
        frame = reader(path)
    except FileNotFoundError:
        raise TableError(f"{path}: there is no such file") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise TableError(f"{path}: not a readable {path.suffix[1:]} file: {str(error).splitlines()[0][:200]}") from None
    names = [c.strip() for c in frame.columns]
    if len(set(names)) < len(names):
        raise TableError(f"{path}: has two columns of the same name, but for spaces; rename one")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


MayLearn = Callable[[str, str, datetime], AbstractContextManager[bool]]
"""Whether this process may make the layout of a model (environment, name) now; no other may while the context lasts."""


class References:
    """Makes layouts and references and keeps them in the registry.

    Of several processes only one makes a model's layout. The others learn of it a little later, and take events in
    without cells until then; ``complete`` gives those events their cells.
    """

    def __init__(self, store: Store, registry: Registry, may_learn: MayLearn) -> None:
        self._store = store
        self._registry = registry
        self._may_learn = may_learn
        self._rows: dict[tuple[str, str], int] = {}
        self.learning = threading.RLock()
        """Held while rows of a model without a layout are written, and while its layout is made from them."""

    def from_table(self, model: Model, table: pl.DataFrame, name: str, version: str, now: datetime) -> Model:
        """A reference from a table: a column per feature, and ``prediction`` or ``score`` if they are to be watched.

        Columns of declared segments (``segments.NAME``, or ``NAME``) let each segment be compared with its own rows.
        The first reference of a model makes its layout. Raises LayoutError or TableError.
        """
        spec = _spec_of_table(model.spec, table)
        lacking = [n for n in spec.features if n not in table.columns and n not in spec.privacy.drop]
        if lacking or not spec.features:
            wanted = ", ".join(spec.features) or "its features"
            raise TableError(
                f"{name}: lacks {', '.join(lacking) or 'columns'}; a reference of {model.name!r} needs {wanted}"
            )
        columns = _table_columns(spec, _redacted(table, spec))
        with self.learning, self._may_learn(model.environment, model.name, now) as may_learn:
            self._registry.refresh(now)
            if (current := self._registry.find(model.environment, model.name)) is not None:
                model = current
            if model.layout is not None:
                counts = model.layout.count({n: c for n, (_, c) in columns.items()})
            elif may_learn:
                layout, counts = fit_layout(columns, _row_ids(table), declared_levels(spec))
                model = self._save_layout(replace(model, spec=spec), layout, now)
                counts = np.concatenate([counts, np.zeros(_layout(model).size - len(counts), np.int64)])
            else:
                raise LayoutError(f"another process is making the layout of model {model.name!r}; try again soon")
        segments = _segment_counts(model, table, columns, counts)
        return self._registry.save_reference(model, Reference(name, version, counts, segments), now)

    def from_window(self, model: Model, window: ReferenceWindow, now: datetime) -> Model:
        """A reference from a past window of the model's own traffic. Raises LayoutError while it has too few rows."""
        if model.layout is None:
            model = self.layout_from_rows(model, now)
        try:
            traffic = read_traffic(self._store, model, window.start, window.end)
        except GoneError as error:
            raise LayoutError(f"the reference window cannot be read any more: {error}") from None
        if traffic.rows() < model.spec.minimum_rows:
            raise LayoutError(
                f"the reference window of model {model.name!r}, {window.start:%Y-%m-%dT%H:%MZ} to "
                f"{window.end:%Y-%m-%dT%H:%MZ}, has {traffic.rows()} rows; {model.spec.minimum_rows} are needed"
            )
        name = window_name(window)
        counts = np.rint(traffic.counts()).astype(np.int64)
        segments = {s: np.rint(traffic.counts(segment=s)).astype(np.int64) for s in traffic.segments()}
        return self._registry.save_reference(model, Reference(name, "", counts, segments), now)

    def after_rows(self, model: Model, more: int, now: datetime) -> None:
        """Note that rows of a model without a layout were written; enough of them make the layout."""
        key = (model.environment, model.name)
        if key in self._rows:
            self._rows[key] += more
        else:
            count = self._store.query("row_count", environment=model.environment, model=model.name)
            self._rows[key] = int(count["rows"][0])
        if self._rows[key] >= max(FIRST_ROWS, model.spec.minimum_rows):
            try:
                self.layout_from_rows(model, now)
            except (LayoutError, LedgerError) as error:  # the rows are kept; later, or with more of them, it will do
                log.warning("no layout yet", model=model.name, reason=str(error))
                self._rows[key] = 0

    def layout_from_rows(self, model: Model, now: datetime) -> Model:
        """The model with a layout fitted on its first stored rows, and those rows profiled.

        Raises LayoutError while there are too few rows.
        """
        with self.learning, self._may_learn(model.environment, model.name, now) as may_learn:
            self._registry.refresh(now)
            model = self._registry.get(model.environment, model.name)
            if model.layout is not None:
                return model
            if not may_learn:
                raise LayoutError(f"another process is making the layout of model {model.name!r}")
            rows = self._stored(model, FIRST_ROWS)
            spec = model.spec
            if rows.height < spec.minimum_rows:
                raise LayoutError(f"model {model.name!r} has {rows.height} rows; its layout needs {spec.minimum_rows}")
            fitted = {n: f.kind for n, f in spec.features.items()} | _output_kinds(spec)
            columns = self._columns(model, rows).features
            layout, _ = fit_layout(
                {n: (kind, columns[n]) for n, kind in fitted.items()},
                rows["prediction_id"].to_list(),
                declared_levels(spec),
            )
            return self._save_layout(model, layout, now)

    def _save_layout(self, model: Model, layout: Layout, now: datetime) -> Model:
        """Keep a layout, after the rows that came before it have got their cells.

        Their new profiles take the place of the empty ones. The order matters: once the layout is known, rows come
        in sampled, and profiles made from those would miss what was not kept. Where rows were forgotten, the empty
        profiles stay: they count what the rest would not.
        """
        layout = Layout((*layout.features, *_fixed_cells(model.spec, layout)))
        rows = self._whole_hours(model, self._stored(model, ALL_ROWS))
        if not rows.is_empty():
            origins = rows.select("source", "batch").unique(maintain_order=True).with_row_index("origin")
            rows = rows.join(origins, on=["source", "batch"], maintain_order="left")
            profiles = profile_rows([(replace(model, layout=layout), self._columns(model, rows))])
            placed = profiles.join(origins.cast({"origin": pl.Int64}), on="origin").drop("origin")
            write_profiles(self._store, placed)
        return self._registry.save_layout(model, layout, now)

    def _whole_hours(self, model: Model, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of those hours of batches that have one for each event."""
        place = ["hour", "source", "batch"]
        counted = self._store.query("batch_events", environment=model.environment, model=model.name)
        placed = rows.with_columns(hour=pl.col("timestamp").dt.truncate("1h"))
        kept = placed.group_by(place).len().join(counted, on=place).filter(pl.col("len") == pl.col("events"))
        return placed.join(kept.select(place), on=place, how="semi", maintain_order="left").drop("hour")

    def complete(self, model: Model, start: datetime, end: datetime) -> None:
        """Give the events of a window their cells that a process took in before it knew of the layout.

        It kept all their rows, so their profiles can be made from those. Where some are gone, it is left as it is, and
        those events count as traffic but not in the comparisons.
        """
        asked = {"environment": model.environment, "model": model.name}
        batches = self._store.query("unplaced", **asked, start=start, end=end, layout_id=_layout(model).id)
        for source, batch, events in batches.iter_rows():
            if not self.reprofile(model, source, batch, start, end, events):
                log.warning("events without cells, and without all their rows", model=model.name, batch=batch)

    def reprofile(self, model: Model, source: str, batch: str, start: datetime, end: datetime, events: int) -> bool:
        """Make the profiles of a batch in a span anew from its rows, unless there are fewer rows than events."""
        asked = {"environment": model.environment, "model": model.name, "source": source, "batch": batch}
        rows = self._store.query("batch_rows", **asked, start=start, end=end)
        if rows.height < events:
            return False
        profiles = profile_rows([(model, self._columns(model, rows))]).drop("origin")
        placed = profiles.with_columns(source=pl.lit(source), batch=pl.lit(batch))
        write_profiles(self._store, placed)
        return True

    def _stored(self, model: Model, most: int) -> pl.DataFrame:
        return self._store.query("first_rows", environment=model.environment, model=model.name, most=most)

    def _columns(self, model: Model, rows: pl.DataFrame) -> PredictionColumns:
        """Stored feature rows as they were when they came in."""
        schemas = self._store.query("model_schemas", environment=model.environment, model=model.name)
        names = {r["schema_id"]: (r["num_names"], r["cat_names"]) for r in schemas.iter_rows(named=True)}
        return stored_columns(rows, model.spec, names)


def stored_columns(
    rows: pl.DataFrame, spec: ModelSpec, names: Mapping[int, tuple[list[str], list[str]]]
) -> PredictionColumns:
    """Feature rows of the store as the columns they were made from. Each schema names its own positions."""
    events = []
    for row in rows.iter_rows(named=True):
        num_names, cat_names = names[row["schema_id"]]
        features = {n: v for n, v in zip(num_names, row["num"], strict=True) if v == v}
        features |= {n: v for n, v in zip(cat_names, row["cat"], strict=True) if v is not None}
        features |= {n: json.loads(v) for n, v in zip(row["extra_names"], row["extra_values"], strict=True)}
        score = row["score"] if row["score"] == row["score"] else None
        events.append(
            {
                "version": row["version"],
                "server": row["server"],
                "role": row["role"],
                "at": row["timestamp"].timestamp(),
                "sampling_fraction": 1 / row["weight"],
                "status": "error" if row["failed"] else "ok",
                "segments": dict(s.split("=", 1) for s in row["segments"]),
                "features": features,
                "prediction": score if spec.task == "regression" else {"score": score, "label": row["label"]},
                "latency_ms": row["latency_ms"] if row["latency_ms"] == row["latency_ms"] else None,
                "origin": row.get("origin", 0),
            }
        )
    return prediction_columns(events, spec.model_copy(update={"privacy": type(spec.privacy)()}))


def window_name(window: ReferenceWindow) -> str:
    """What a reference made from a past window is called."""
    return f"{window.start:%Y-%m-%dT%H:%MZ}..{window.end:%Y-%m-%dT%H:%MZ}"


def declared_levels(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """The levels that the configuration names."""
    return {name: f.levels for name, f in spec.features.items() if f.levels}


def _layout(model: Model) -> Layout:
    if model.layout is None:
        raise LayoutError(f"model {model.name!r} has no layout yet")
    return model.layout


def _output_kinds(spec: ModelSpec) -> dict[str, Kind]:
    if spec.task == "regression":
        return {PREDICTION: Kind.NUMERIC}
    return {PREDICTION: Kind.CATEGORICAL, SCORE: Kind.SCORE}


def _fixed_cells(spec: ModelSpec, layout: Layout) -> tuple[FeatureCells, ...]:
    """Outputs whose cells need no fitting, where they are not there yet."""
    fixed = {LATENCY: Kind.LATENCY} | ({SCORE: Kind.SCORE} if spec.task == "classification" else {})
    return tuple(FeatureCells(n, k) for n, k in fixed.items() if n not in layout.by_name)


def _spec_of_table(spec: ModelSpec, table: pl.DataFrame) -> ModelSpec:
    if spec.features:
        return spec
    reserved = {*OUTPUT_COLUMNS, "prediction_id", "timestamp", "label", "version", "server"}
    first = table.head(1_000).select(pl.exclude(list(reserved & set(table.columns)))).to_dicts()
    return with_features(spec, infer_features(first, {}))


def _table_columns(spec: ModelSpec, table: pl.DataFrame) -> dict[str, tuple[Kind, Column]]:
    columns = {n: (f.kind, frame_column(table[n], f.kind)) for n, f in spec.features.items() if n in table.columns}
    for name, kind in _output_kinds(spec).items():
        source = name.removeprefix("@")
        if source in table.columns and columns:
            values = table[source].to_list()
            # Answers are labels: true is 1 here as it is in events.
            column = (
                level_column([label_text(v) for v in values]) if kind is Kind.CATEGORICAL else number_column(values)
            )
            columns[name] = (kind, column)
    return columns


def _segment_counts(
    model: Model, table: pl.DataFrame, columns: Mapping[str, tuple[Kind, Column]], whole: Counts
) -> dict[str, Counts]:
    """The counts of each declared segment that the table tells apart: by a column ``segments.NAME``, or ``NAME``.

    The rows that chose the levels of a feature are left out here as they are in the counts of all rows, ``whole``.
    """
    counts: dict[str, Counts] = {}
    every = np.ones(table.height, bool)
    rest = every
    layout = _layout(model)
    chose = {n for n in columns if 0 < whole[layout.spans[n]].sum() < table.height}
    if chose and model.spec.segments:
        rest = ~chosen_fifth(_row_ids(table))
    for name, declared in model.spec.segments.items():
        column = next((c for c in (f"segments.{name}", name) if c in table.columns), None)
        if column is None:
            continue
        values = [None if v is None else segment_value(name, v, declared) for v in table[column].to_list()]
        of_row = np.array(values, object)
        for value in sorted({v for v in values if v is not None}):
            here = of_row == value
            rows = {n: here & (rest if n in chose else every) for n in columns}
            counts[value] = layout.count({n: c.take(rows[n]) for n, (_, c) in columns.items()})
    return counts


def _redacted(table: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    """The table as events would have brought it, after the fields that must not be kept are dropped or hashed."""
    if not (spec.privacy.drop or spec.privacy.hash):
        return table
    named = [c for c in table.columns if c in {*spec.privacy.drop, *spec.privacy.hash}]
    rows = [{"features": row} for row in table.select(named).to_dicts()]
    redact(rows, spec)
    kept = [c for c in named if c not in spec.privacy.drop]
    hashed = [pl.Series(c, [r["features"][c] for r in rows], dtype=pl.String) for c in kept]
    return table.drop(named).with_columns(hashed)


def _row_ids(table: pl.DataFrame) -> list[str]:
    """A text per row for choosing a fifth: its id, or else its content, so that row order does not matter."""
    if "prediction_id" in table.columns:
        return table["prediction_id"].cast(pl.String).fill_null("").to_list()
    return table.hash_rows(seed=1).cast(pl.String).to_list()
