"""Predictions of one model as columns, with every odd value in its place.

A value of the wrong kind, NaN or infinite never costs the row: it leaves a hole in its column, is counted as what it
is, and its text is kept beside the row.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.layout import Column, Kind
from monitor.config import ModelSpec
from monitor.decode import Fields, json_text, label_text
from monitor.secrets import read_secret

if TYPE_CHECKING:
    import pyarrow as pa

OUTPUT_MARK = "@"
PREDICTION, SCORE, LATENCY = "@prediction", "@score", "@latency"
"""What a model gives, watched like a feature. The mark keeps them apart from features; those may not begin with it."""
NOT_FINITE_WORDS = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
PRIVATE_FIELDS = frozenset({"prediction_id", "entity_id", "trace_id", "batch_id", "error"})
"""Fields of an event, beside its features and segments, that can be dropped or hashed."""
NONE = np.empty(0, np.int64)
TEXTS = ("version", "server", "role", "prediction_id", "error", "entity_id", "batch_id", "trace_id")
ABSENT = {"role": "live"}
WEIGHT_DIGITS = 3
"""A profile is of one weight: a pod that ships a slightly other share each time must not make one of each event."""
OTHER = "other"


@dataclass(slots=True)
class PredictionColumns:
    """Some predictions of one model, a row each.

    row
        The number of its line in the batch.
    texts
        Version, server, role, prediction id and what else an event says of itself (``TEXTS``); never null.
    segments
        Per declared segment what is stored of it (``name=value``), null where the event does not name it.
    origin
        Tells rows of several batches apart.
    features
        The declared features and the model's outputs (``@prediction``, ``@score``, ``@latency``).
    score
        A classifier's probability of its answer (or of the positive label), or a regression's answer; NaN if none.
    label
        A classifier's answer as text, null if none.
    extras
        Per row the keys nobody declared and the texts of values that did not fit; None where there are none.
    undeclared
        Per row how many undeclared keys it had.
    """

    row: NDArray[np.int64]
    texts: dict[str, pl.Series]
    segments: dict[str, pl.Series]
    origin: NDArray[np.int64]
    at: NDArray[np.float64]
    weight: NDArray[np.float64]
    failed: NDArray[np.bool_]
    features: dict[str, Column]
    score: NDArray[np.float64]
    label: pl.Series
    extras: list[dict[str, str] | None]
    undeclared: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: NDArray[np.int64]) -> PredictionColumns:
        """Some of the rows. What is odd among their features is not told from what is missing any more."""
        return PredictionColumns(
            row=self.row[rows],
            texts={n: texts[rows] for n, texts in self.texts.items()},
            segments={n: values[rows] for n, values in self.segments.items()},
            origin=self.origin[rows],
            at=self.at[rows],
            weight=self.weight[rows],
            failed=self.failed[rows],
            features={n: Column(column.values[rows], NONE, NONE) for n, column in self.features.items()},
            score=self.score[rows],
            label=self.label[rows],
            extras=[self.extras[row] for row in rows.tolist()],
            undeclared=self.undeclared[rows],
        )


def prediction_columns(events: Sequence[Fields], spec: ModelSpec) -> PredictionColumns:
    """The columns of some prediction events, after the fields that must not be kept have been dropped or hashed."""
    if spec.privacy.drop or spec.privacy.hash:
        redact(events, spec)
    rows: list[Fields] = [e["features"] for e in events]
    extras: list[dict[str, str] | None] = [None] * len(events)
    by_feature = dict(zip(spec.features, _by_feature(rows, list(spec.features)), strict=True))
    plain = _plain_numbers({n: by_feature[n] for n in spec.num_names})
    features: dict[str, Column] = {}
    holes = np.zeros(len(events), bool)
    for name, values in by_feature.items():
        read = number_column if spec.features[name].kind is Kind.NUMERIC else level_column
        column = plain[name] if name in plain else read(values)
        features[name] = column
        if column.values.null_count():
            holes |= column.values.is_null().to_numpy()
            for row in (*column.not_finite.tolist(), *column.wrong_kind.tolist()):
                _extra(extras, row)[name] = json_text(values[row])
    score, label, outputs = _answers([e.get("prediction") for e in events], spec)
    latency = number_column([e.get("latency_ms") for e in events])
    fractions = [e.get("sampling_fraction") for e in events]
    return PredictionColumns(
        row=np.array([e.get("row", 0) for e in events], np.int64),
        texts=_texts(events),
        segments={name: _segment(events, name, declared) for name, declared in spec.segments.items()},
        origin=np.array([e.get("origin", 0) for e in events], np.int64),
        at=np.array([e["at"] for e in events], np.float64),
        weight=pl.Series(1.0 / np.array([1.0 if f is None else f for f in fractions], np.float64))
        .round_sig_figs(WEIGHT_DIGITS)
        .to_numpy(),
        failed=np.array([e.get("status") == "error" for e in events], bool),
        features=features | outputs | {LATENCY: latency},
        score=score,
        label=label,
        extras=extras,
        undeclared=_undeclared(rows, features, holes, extras),
    )


def together(parts: Sequence[PredictionColumns]) -> PredictionColumns:
    """Predictions of one model, decoded in several ways, as one."""
    first, *others = parts
    if not others:
        return first
    return PredictionColumns(
        row=np.concatenate([p.row for p in parts]),
        texts={n: pl.concat([p.texts[n] for p in parts]) for n in first.texts},
        segments={n: pl.concat([p.segments[n] for p in parts]) for n in first.segments},
        origin=np.concatenate([p.origin for p in parts]),
        at=np.concatenate([p.at for p in parts]),
        weight=np.concatenate([p.weight for p in parts]),
        failed=np.concatenate([p.failed for p in parts]),
        features={n: _one_below_the_other([p.features[n] for p in parts]) for n in first.features},
        score=np.concatenate([p.score for p in parts]),
        label=pl.concat([p.label for p in parts]),
        extras=[x for p in parts for x in p.extras],
        undeclared=np.concatenate([p.undeclared for p in parts]),
    )


def _one_below_the_other(columns: Sequence[Column]) -> Column:
    starts = np.cumsum([0, *(len(c.values) for c in columns[:-1])])
    return Column(
        pl.concat([c.values for c in columns]),
        np.concatenate([c.not_finite + start for c, start in zip(columns, starts, strict=True)]),
        np.concatenate([c.wrong_kind + start for c, start in zip(columns, starts, strict=True)]),
    )


def segment_value(name: str, value: object, declared: Sequence[str]) -> str:
    """A segment as it is stored: ``name=value``, or ``name=other`` for a value that is not declared."""
    text = str(value)
    return f"{name}={text if text in declared else OTHER}"


def _segment(events: Sequence[Fields], name: str, declared: Sequence[str]) -> pl.Series:
    given = [(e.get("segments") or {}).get(name) for e in events]
    return pl.Series([None if v is None else segment_value(name, v, declared) for v in given], dtype=pl.String)


def number_column(values: Sequence[object]) -> Column:
    """Numbers as JSON had them. Booleans, texts and containers are of the wrong kind; ``"NaN"`` is not finite.

    >>> column = number_column([1, 2.5, None, "NaN", "7"])
    >>> column.values.to_list(), column.not_finite.tolist(), column.wrong_kind.tolist()
    ([1.0, 2.5, None, None, None], [3], [4])
    """
    plain = _plain_numbers({"": values})
    if plain:
        return plain[""]
    numbers: list[float | None] = []
    not_finite, wrong_kind = [], []
    for row, value in enumerate(values):
        kept = None
        if type(value) in (float, int):
            kept = _finite(value)
            if kept is None:
                not_finite.append(row)
        elif type(value) is str and value.strip().lower() in NOT_FINITE_WORDS:
            not_finite.append(row)
        elif value is not None:
            wrong_kind.append(row)
        numbers.append(kept)
    return Column(pl.Series(numbers, dtype=pl.Float64), np.array(not_finite, np.int64), np.array(wrong_kind, np.int64))


def _plain_numbers(features: Mapping[str, Sequence[object]]) -> dict[str, Column]:
    """Columns of numbers, made in one go; none at all unless every value of every one is a finite number or null."""
    rows = len(next(iter(features.values()), ()))
    kinds = set(map(type, itertools.chain.from_iterable(features.values())))
    if not rows or not kinds <= {float, int, type(None)}:
        return {}
    try:
        numbers = np.array(list(features.values()), np.float64).ravel()
    except OverflowError:  # some whole number is too large
        return {}
    nulls = sum(values.count(None) for values in features.values()) if type(None) in kinds else 0
    if np.isfinite(numbers).sum() != len(numbers) - nulls:
        return {}
    flat = pl.Series(numbers, nan_to_null=nulls > 0)
    return {name: Column(flat.slice(at * rows, rows), NONE, NONE) for at, name in enumerate(features)}


def _texts(events: Sequence[Fields]) -> dict[str, pl.Series]:
    """What events say of themselves, in one go as well: each column costs as much as many values."""
    size = len(events)
    flat = pl.Series([e.get(n) or ABSENT.get(n, "") for n in TEXTS for e in events], dtype=pl.String)
    return {n: flat.slice(at * size, size).alias(n) for at, n in enumerate(TEXTS)}


def level_column(values: Sequence[object]) -> Column:
    """Levels as text. Numbers and booleans are taken by their text; containers are of the wrong kind.

    >>> level_column(["a", 3, 3.0, True, None, []]).values.to_list()
    ['a', '3', '3', 'true', None, None]
    """
    kinds = set(map(type, values))
    if kinds <= {str, type(None)}:
        return Column(pl.Series(values, dtype=pl.String), NONE, NONE)
    levels = [_level(v) for v in values]
    wrong = [
        row
        for row, (value, level) in enumerate(zip(values, levels, strict=True))
        if level is None and value is not None
    ]
    return Column(pl.Series(levels, dtype=pl.String), NONE, np.array(wrong, np.int64))


def frame_column(values: pl.Series, kind: Kind) -> Column:
    """A column of a table, read as the feature's kind says.

    >>> frame_column(pl.Series([1.0, 2.0]), Kind.CATEGORICAL).values.to_list()
    ['1', '2']
    """
    if kind is Kind.CATEGORICAL:
        if values.dtype.is_float():
            return level_column(values.to_list())
        return Column.of(values.cast(pl.String))
    if values.dtype.is_numeric() or values.dtype == pl.Null:
        return Column.of(values)
    return number_column(values.to_list())


def redact(events: Sequence[Fields], spec: ModelSpec) -> None:
    """Drop or hash, in place, the fields that the model's privacy section names."""
    privacy = spec.privacy
    key = read_secret(privacy.hash_key_env, privacy.hash_key_file).encode() if privacy.hash else b""
    for event in events:
        beside = {n: event[n] for n in PRIVATE_FIELDS if n in event}
        holders = (beside, event.get("features"), event.get("segments"))
        for holder in (h for h in holders if isinstance(h, dict)):  # in a label they may be anything
            for name in privacy.drop:
                holder.pop(name, None)
            for name in privacy.hash:
                value = holder.get(name)
                if value is not None:
                    text = value if isinstance(value, str) else json_text(value)
                    holder[name] = hmac.new(key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
        for name in PRIVATE_FIELDS & event.keys():
            event[name] = beside.get(name, "")


def infer_features(rows: Sequence[Mapping[str, object]], known: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kinds of features, from the first usable value of each that is not known yet; order of first sight.

    >>> infer_features([{"a": None}, {"a": 1, "b": "x"}, {"c": []}], {})
    {'a': <Kind.NUMERIC: 'numeric'>, 'b': <Kind.CATEGORICAL: 'categorical'>}
    """
    kinds = dict(known)
    for row in rows:
        if row.keys() <= kinds.keys():
            continue
        for name, value in row.items():
            if name not in kinds and not name.startswith(OUTPUT_MARK):
                if type(value) in (int, float):
                    kinds[name] = Kind.NUMERIC
                elif type(value) in (str, bool):
                    kinds[name] = Kind.CATEGORICAL
    return kinds


def infer_task(predictions: Sequence[object]) -> str:
    """``regression`` where the answers are bare numbers, else ``classification``."""
    first = next((p for p in predictions if p is not None), None)
    return "regression" if type(first) in (int, float) else "classification"


def milliseconds(seconds: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Epoch seconds as the milliseconds that the store keeps. Minutes and hours are made from these.

    >>> milliseconds([59.9999999, 1.0006]).tolist()
    [60000, 1000]
    """
    return np.floor(np.round(np.asarray(seconds, np.float64) * 1e6) / 1000).astype(np.int64)


def lists(offsets: NDArray[np.int64], flat: NDArray[Any] | pl.Series | pa.Array) -> pl.Series:
    """A column of lists: row i holds ``flat[offsets[i]:offsets[i + 1]]``. Polars would build one object a row.

    >>> lists(np.array([0, 1, 1, 3]), np.array([7, 8, 9])).to_list()
    [[7], [], [8, 9]]
    """
    import pyarrow as pa

    values = (
        flat.to_arrow() if isinstance(flat, pl.Series) else pa.array(flat) if isinstance(flat, np.ndarray) else flat
    )
    column = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values))
    assert isinstance(column, pl.Series)  # noqa: S101 - tells the type checker what an array becomes
    return column


def _by_feature(rows: Sequence[Fields], names: Sequence[str]) -> Sequence[Sequence[object]]:
    """The values of each feature. Rows that have all of them, which most do, are turned in one go."""
    if len(names) > 1 and rows:
        try:
            return list(zip(*map(operator.itemgetter(*names), rows), strict=True))
        except KeyError:
            pass
    return [[r.get(name) for r in rows] for name in names]


def _answers(values: Sequence[object], spec: ModelSpec) -> tuple[NDArray[np.float64], pl.Series, dict[str, Column]]:
    if spec.task == "regression":
        answers = number_column([v.get("score") if type(v) is dict else v for v in values])
        score = answers.values.to_numpy()  # missing numbers become NaN
        return score, pl.Series([None] * len(values), dtype=pl.String), {PREDICTION: answers}
    if set(map(type, values)) <= {str}:
        labels = Column(pl.Series(values, dtype=pl.String), NONE, NONE)
        scores = number_column([None] * len(values))
    else:
        pairs = [_score_and_label(v, spec) for v in values]
        labels = level_column([p[1] for p in pairs])
        scores = number_column([p[0] for p in pairs])
    return scores.values.to_numpy(), labels.values, {PREDICTION: labels, SCORE: scores}


def _score_and_label(value: Any, spec: ModelSpec) -> tuple[object, object]:
    """A classifier's answer as score and label; a container in place of either is of the wrong kind."""
    if type(value) is not dict:
        if spec.threshold is not None and type(value) in (int, float):
            return value, "1" if value >= spec.threshold else "0"
        return None, label_text(value) if type(value) is not list else value
    score: Any = value.get("score")
    label: object = value.get("label")
    if type(score) is dict:
        label, score = _of_classes(score, label, spec)
    elif label is None and spec.threshold is not None and type(score) in (int, float):
        label = "1" if score >= spec.threshold else "0"
    text = label_text(label)
    return score, label if text is None else text


def _of_classes(scores: dict[str, Any], label: object, spec: ModelSpec) -> tuple[object, object]:
    numbers: dict[str, float] = {k: v for k, v in scores.items() if type(v) in (int, float)}
    if label is None and numbers:
        label = max(numbers, key=numbers.__getitem__)
    watched = spec.positive_label if spec.positive_label in numbers else label_text(label)
    return label, numbers.get(watched) if watched is not None else None


def _undeclared(
    rows: Sequence[Fields],
    declared: Mapping[str, Column],
    holes: NDArray[np.bool_],
    extras: list[dict[str, str] | None],
) -> NDArray[np.int64]:
    """Finds keys that nobody declared; only rows of another length, or with a hole, can have one."""
    counts = np.zeros(len(rows), np.int64)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    for row in np.flatnonzero((lengths != len(declared)) | holes).tolist():
        names = rows[row].keys() - declared.keys()
        if names:
            counts[row] = len(names)
            _extra(extras, row).update({name: json_text(rows[row][name]) for name in sorted(names)})
    return counts


def _extra(extras: list[dict[str, str] | None], row: int) -> dict[str, str]:
    found = extras[row]
    if found is None:
        found = extras[row] = {}
    return found


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _level(value: object) -> str | None:
    if type(value) is bool:
        return "true" if value else "false"
    return label_text(value)
