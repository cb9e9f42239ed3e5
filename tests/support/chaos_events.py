"""Events with known content, and what a store that lost nothing and doubled nothing must hold of them.

What was sent is kept as columns; the expected counts are made from those, not by the code that takes events in. Only
the cells are the layout's, as there is no other definition of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import orjson
import polars as pl

from detectors.layout import Column, Layout
from monitor.folding import span
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import read_traffic

HOUR = timedelta(hours=1)
HOURS = 3
PARTITIONS = 4
VERSIONS, SERVERS, ROLES, LABELS = ("1", "2"), ("pod-1", "pod-2", "pod-3"), ("live", "shadow"), ("no", "yes")
REGIONS, PLANS = ("eu", "us", "apac", None), ("a", "b", "c", "never seen before", None)
DECLARED_REGIONS = ("eu", "us")
MODEL = "m"
DECLARED = {
    "features": {"amount": "numeric", "count": "numeric", "plan": "categorical"},
    "segments": {"region": list(DECLARED_REGIONS)},
    "windows": [f"{HOURS}h"],
    "monitors": ["drift"],
}
NDJSON = [("content-type", b"application/x-ndjson")]
FEATURES = {"amount": "amount", "count": "count", "plan": "plan", "@prediction": "label", "@score": "score"}
FEATURES |= {"@latency": "latency_ms"}
Group = tuple[str, str, str, str, int]
"""Version, server, role, segment, hour (epoch seconds)."""


class Events:
    """Makes events and remembers them. Times of events lie in ``HOURS`` hours from ``begin``; some come late."""

    def __init__(self, seed: int, begin: datetime, expected: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._begin = begin.timestamp()
        self._expected = expected
        self._chunks: list[pl.DataFrame] = []
        self.sent = 0
        self.garbage = 0

    def messages(self, count: int) -> list[dict[str, Any]]:
        """Messages that hold so many more events: one each, or several as NDJSON; here and there a line of garbage."""
        chunk = self._chunk(count)
        lines = [orjson.dumps(event) for event in self._bodies(chunk)]
        messages = []
        at = 0
        while at < count:
            size = int(self._rng.choice([1, 1, 1, 4, 9]))
            part = lines[at : at + size]
            at += size
            if self._rng.random() < 0.01:
                part.insert(int(self._rng.integers(len(part) + 1)), b"garbage %d" % self.garbage)
                self.garbage += 1
            message: dict[str, Any] = {"value": b"\n".join(part), "partition": int(self._rng.integers(PARTITIONS))}
            messages.append(message | ({"headers": NDJSON} if len(part) > 1 else {}))
        self._chunks.append(chunk)
        self.sent += count
        return messages

    def all(self) -> pl.DataFrame:
        """Everything that was sent."""
        return pl.concat(self._chunks)

    def _chunk(self, count: int) -> pl.DataFrame:
        rng = self._rng
        numbers = np.arange(self.sent, self.sent + count)
        in_order = np.minimum(numbers / self._expected, 1)
        share = np.where(rng.random(count) < 0.02, rng.random(count), in_order)
        at = self._begin + np.floor(share * (HOURS * 3600 - 1) * 1000) / 1000

        def pick(values: tuple[Any, ...], shares: list[float]) -> pl.Series:
            return pl.Series([values[i] for i in rng.choice(len(values), count, p=shares).tolist()])

        amount = rng.normal(100, 20, count).round(3)
        return pl.DataFrame(
            {
                "number": numbers,
                "at": at,
                "version": pick(VERSIONS, [0.7, 0.3]),
                "server": pick(SERVERS, [0.5, 0.3, 0.2]),
                "role": pick(ROLES, [0.95, 0.05]),
                "region": pick(REGIONS, [0.5, 0.3, 0.1, 0.1]),
                "amount": pl.Series(np.where(rng.random(count) < 0.03, np.nan, amount)).fill_nan(None),
                "count": rng.poisson(2, count).astype(np.float64),
                "plan": pick(PLANS, [0.6, 0.25, 0.1, 0.02, 0.03]),
                "label": pick(LABELS, [0.8, 0.2]),
                "score": rng.beta(2, 5, count).round(4),
                "latency_ms": rng.gamma(2, 10, count).round(3),
                "failed": rng.random(count) < 0.01,
                "undeclared": rng.random(count) < 0.02,
            }
        )

    @staticmethod
    def _bodies(chunk: pl.DataFrame) -> Iterator[dict[str, Any]]:
        for row in chunk.iter_rows(named=True):
            features = {name: row[name] for name in ("amount", "count", "plan") if row[name] is not None}
            event = {
                "type": "prediction",
                "model": MODEL,
                "version": row["version"],
                "server": row["server"],
                "role": row["role"],
                "prediction_id": f"p{row['number']}",
                "timestamp": row["at"],
                "features": features | ({"unknown": 1} if row["undeclared"] else {}),
                "prediction": {"label": row["label"], "score": row["score"]},
                "latency_ms": row["latency_ms"],
                "status": "error" if row["failed"] else "ok",
            }
            yield event | ({"segments": {"region": row["region"]}} if row["region"] else {})


def reference(seed: int) -> pl.DataFrame:
    """A table like the events, for the layout. It has all plans but the one that was never seen before."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "amount": rng.normal(100, 20, 5000).round(3),
            "count": rng.poisson(2, 5000).astype(np.float64),
            "plan": pl.Series(rng.choice(["a", "b", "c"], 5000)),
            "prediction": pl.Series(rng.choice(LABELS, 5000)),
            "score": rng.beta(2, 5, 5000).round(4),
        }
    )


@dataclass(frozen=True)
class Difference:
    """How much of something is missing and how much is there too often."""

    expected: int
    lost: int
    duplicated: int

    @staticmethod
    def between(expected: Mapping[Any, int], found: Mapping[Any, int]) -> Difference:
        """Of two tables of counts."""
        lost = sum(max(count - found.get(key, 0), 0) for key, count in expected.items())
        duplicated = sum(max(count - expected.get(key, 0), 0) for key, count in found.items())
        return Difference(sum(expected.values()), lost, duplicated)

    @property
    def nothing(self) -> bool:
        """Whether both are the same."""
        return not (self.lost or self.duplicated)


def differences(events: Events, store: Store, model: Model, begin: datetime) -> dict[str, Difference]:
    """What is in the store held against what was sent. The hours must have been folded."""
    sent = events.all()
    profiles = expected_profiles(sent, _layout(model))
    ids = Counter(dict.fromkeys(sent["number"].to_list(), 1))
    placed = {(*key, _hour(at)): n for *key, at, n in _rows_by_place(sent).iter_rows()}
    garbage = {f"garbage {n}": 1 for n in range(events.garbage)}
    return {
        "prediction rows": Difference.between(ids, _ids(store, "predictions")),
        "feature rows": Difference.between(ids, _ids(store, "features")),
        "rows per server, version, hour": Difference.between(placed, _places(store)),
        "dead letters": Difference.between(garbage, _garbage(store)),
        "profile counts, batches": Difference.between(profiles, batch_profiles(store, _layout(model))),
        "profile counts, as read": Difference.between(profiles, read_profiles(store, model, begin)),
    }


Counts = Mapping[tuple[Group, str | int], int]
"""Of each group: events, failures, undeclared keys, and every cell that is not zero."""


def expected_profiles(sent: pl.DataFrame, layout: Layout) -> Counts:
    """What the profiles must hold."""
    declared = pl.col("region").is_in(DECLARED_REGIONS)
    region = pl.when(declared).then(pl.col("region")).otherwise(pl.lit("other"))
    cells = {f"cell {name}": layout.by_name[name].cells(Column.of(sent[column])) for name, column in FEATURES.items()}
    whole = sent.with_columns(**cells, segment=pl.lit(""), hour=(pl.col("at") // 3600 * 3600).cast(pl.Int64))
    parts = whole.filter(pl.col("region").is_not_null()).with_columns(segment="region=" + region)
    table = pl.concat([whole, parts])
    group = ["version", "server", "role", "segment", "hour"]
    counts: dict[tuple[Group, str | int], int] = {}
    sums = table.group_by(group).agg(pl.len(), pl.col("failed").sum(), pl.col("undeclared").sum())
    for *key, n, failed, undeclared in sums.iter_rows():
        counts |= _named(key, n, failed, undeclared)
    for name in FEATURES:
        start = layout.spans[name].start
        for *key, cell, n in table.group_by(*group, f"cell {name}").len().iter_rows():
            counts[_group(key), start + cell] = n
    return {key: n for key, n in counts.items() if n}


def batch_profiles(store: Store, layout: Layout) -> Counts:
    """What the profiles of batches hold, added up."""
    table = store.select(
        "SELECT version, server, role, segment, toUnixTimestamp(toStartOfHour(minute)) AS hour, "
        "sum(p.n) AS n, sum(p.failed) AS failed, sum(p.undeclared) AS undeclared, "
        "sumMap(p.cells, CAST(p.counts, 'Array(UInt64)')) AS filled, "
        "tupleElement(filled, 1) AS cells, tupleElement(filled, 2) AS counts "
        "FROM profile_batches AS p FINAL WHERE layout_id = {layout:String} AND weight = 1 "
        "GROUP BY version, server, role, segment, hour",
        layout=layout.id,
    ).drop("filled")
    counts: dict[tuple[Group, str | int], int] = {}
    for *key, n, failed, undeclared, cells, numbers in table.iter_rows():
        counts |= _named(key, n, failed, undeclared)
        counts |= {(_group(key), cell): number for cell, number in zip(cells, numbers, strict=True)}
    return {key: n for key, n in counts.items() if n}


def read_profiles(store: Store, model: Model, begin: datetime) -> Counts:
    """What readers of profiles get for each hour, all from folded sums."""
    counts: dict[tuple[Group, str | int], int] = {}
    for start in (begin + n * HOUR for n in range(HOURS)):
        if span(store, model.environment, model.name, start, start + HOUR).hours != [start]:
            raise AssertionError(f"the hour from {start} is not folded")
        traffic = read_traffic(store, model, start, start + HOUR)
        for row, cells in zip(traffic.table.iter_rows(named=True), traffic.matrix, strict=True):
            key = [row["version"], row["server"], row["role"], row["segment"], int(start.timestamp())]
            counts |= _named(key, row["rows"] - row["unplaced"], row["failures"], row["undeclared_keys"])
            counts |= {(_group(key), int(cell)): int(cells[cell]) for cell in np.flatnonzero(cells)}
    return {key: n for key, n in counts.items() if n}


def _layout(model: Model) -> Layout:
    if model.layout is None:
        raise AssertionError("the model has lost its layout")
    return model.layout


def _hour(at: float) -> int:
    return int(at // 3600 * 3600)


def _group(key: list[Any]) -> Group:
    version, server, role, segment, hour = key
    return version, server, role, segment, int(hour)


def _named(key: list[Any], n: int, failed: int, undeclared: int) -> dict[tuple[Group, str | int], int]:
    group = _group(key)
    return {(group, "n"): n, (group, "failed"): failed, (group, "undeclared"): undeclared}


def _rows_by_place(sent: pl.DataFrame) -> pl.DataFrame:
    hours = sent.with_columns(hour=pl.col("at") // 3600 * 3600)
    return hours.group_by("server", "version", "hour").len()


def _places(store: Store) -> dict[tuple[Any, ...], int]:
    rows = store.select(
        "SELECT server, version, toUnixTimestamp(toStartOfHour(timestamp)) AS hour, count() AS n "
        "FROM predictions FINAL GROUP BY server, version, hour"
    )
    return {tuple(key): n for *key, n in rows.iter_rows()}


def _ids(store: Store, table: str) -> dict[int, int]:
    rows = store.select(
        "SELECT toUInt64(substring(prediction_id, 2)) AS number, count() AS n "  # noqa: S608 - a table of ours
        f"FROM {table} FINAL GROUP BY number"
    )
    return dict(rows.iter_rows())


def _garbage(store: Store) -> dict[str, int]:
    rows = store.select("SELECT raw, count() AS n FROM dead_letters FINAL GROUP BY raw")
    return {raw if isinstance(raw, str) else bytes(raw).decode(): n for raw, n in rows.iter_rows()}
