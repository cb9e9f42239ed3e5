"""Windows: which are due, and the traffic in one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.finding import Window, step
from monitor.folding import HOUR, GoneError, Hours, read_hours
from monitor.registry import Model
from monitor.store import Store

LATE_ALLOWANCE = timedelta(minutes=2)
"""How long after its end a window waits for events that are still on their way."""
PARTS = ("version", "server")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def floor(at: datetime, length: timedelta) -> datetime:
    """The latest start of a window at or before a time. Windows are counted from 1970-01-01T00:00Z.

    >>> floor(datetime(2026, 1, 1, 5, 30, tzinfo=UTC), timedelta(hours=6)).hour
    0
    """
    return EPOCH + (at - EPOCH) // length * length


def whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The smallest span of whole hours that holds another.

    >>> [at.minute for at in whole_hours(EPOCH + timedelta(minutes=45), EPOCH + timedelta(minutes=60))]
    [0, 0]
    """
    return floor(start, HOUR), EPOCH - (EPOCH - end) // HOUR * HOUR


def next_start(length: timedelta, last_end: datetime | None, since: datetime) -> datetime:
    """The start of the window to judge next.

    last_end
        Of the last window judged; None: there was none.
    since
        When the model was first heard of.
    """
    return floor(since, step(length)) if last_end is None else last_end - length + step(length)


def due(first: datetime, length: timedelta, ready: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The window that starts at ``first`` and those after it that have ended by ``ready``, oldest first."""
    while first + length <= ready:
        yield first, first + length
        first += step(length)


def is_due(model: Model, window: Window) -> bool:
    """Whether a window is one of those that are judged by themselves, rather than one that somebody asked for."""
    length = window.end - window.start
    return length in model.spec.windows and window.start == floor(window.start, step(length))


def is_side_by_side(window: Window) -> bool:
    """Whether it is one of those that cover all time once: what adds up windows takes these."""
    return window.start == floor(window.start, window.end - window.start)


@dataclass(frozen=True)
class Traffic:
    """The profiles of one window: a row per version, server, segment, role and sampling weight.

    counts are kept raw. Windows that mix sampling weights are combined with the weights and scaled to the effective
    number of rows, (Σw)² / Σw².
    """

    table: pl.DataFrame
    matrix: NDArray[np.int64]
    _columns: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.table.height

    def rows(self, **where: str) -> int:
        """How many events were received."""
        return int(self._weights(self._mask(**where))[1].sum())

    def rows_of_all(self) -> int:
        """How many events were received, in all roles."""
        return int(self._column("rows")[self._column("segment") == ""].sum())

    def failures(self, **where: str) -> tuple[float, float]:
        """How many requests failed, of how many: raw where all rows have one weight, else of the effective number."""
        mask = self._mask(**where)
        weights, rows = self._weights(mask)
        failed = self._column("failures")[mask].astype(np.float64)
        if len(np.unique(weights)) <= 1:
            return float(failed.sum()), float(rows.sum())
        effective = (weights * rows).sum() ** 2 / (weights**2 * rows).sum()
        return float((weights * failed).sum() / (weights * rows).sum() * effective), float(effective)

    def undeclared_keys(self, **where: str) -> int:
        """How many feature keys came that nobody declared."""
        return int(self._column("undeclared_keys")[self._mask(**where)].sum())

    def unplaced(self) -> int:
        """How many events have no cells of the layout."""
        return int(self.table["unplaced"].sum())

    def requests(self, **where: str) -> float:
        """How many requests they stand for: the sum of their weights."""
        weights, rows = self._weights(self._mask(**where))
        return float((weights * rows).sum())

    def counts(self, without: Collection[str] = (), **where: str) -> NDArray[Any]:
        """The count vector: raw where all rows have one weight, else scaled to the effective number of rows.

        ``where``: version, server, segment (default '', everything), role (default live). ``without``: as a finding's
        subject has it; segments that are left out must be values of one key, so that no row is left out twice.
        """
        left_out = [place.removeprefix("segment=") for place in without if place.startswith("segment=")]
        others = [place for place in without if not place.startswith("segment=")]
        mask = self._mask(without=others, **where)
        signs = mask.astype(np.int64)
        for segment in left_out:
            signs -= self._mask(without=others, **where | {"segment": segment})
        used = signs != 0
        return combined(self.matrix[used], *self._weights(used), signs[used])

    def places(self) -> list[tuple[str, str]]:
        """The versions and servers with live traffic."""
        live = self._mask() & (self._column("rows") > 0)
        return sorted(set(zip(self._column("version")[live], self._column("server")[live], strict=True)))

    def _weights(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._column("weight")[mask], self._column("rows")[mask].astype(np.float64)

    def segments(self, **where: str) -> list[str]:
        """The segments with live traffic, such as ``plan=vip``."""
        segments = self._column("segment")
        found = (segments != "") & (self._column("role") == "live") & (self._column("rows") > 0)
        for name, value in where.items():
            if value:
                found &= self._column(name) == value
        return sorted(set(segments[found]))

    def _mask(
        self,
        version: str = "",
        server: str = "",
        segment: str = "",
        role: str = "live",
        without: Collection[str] = (),
    ) -> NDArray[np.bool_]:
        chosen: NDArray[np.bool_] = (self._column("segment") == segment) & (self._column("role") == role)
        if version:
            chosen &= self._column("version") == version
        if server:
            chosen &= self._column("server") == server
        if without:
            chosen &= ~self._all_of(without)
        return chosen

    def _all_of(self, places: Collection[str]) -> NDArray[np.bool_]:
        """Rows of any of the servers, of any of the versions; of the versions on the servers where both are named."""
        chosen = np.ones(len(self), np.bool_)
        for kind in PARTS:
            names = [p.removeprefix(f"{kind}=") for p in places if p.startswith(f"{kind}=")]
            if names:
                chosen &= np.isin(self._column(kind), names)
        return chosen

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            self._columns[name] = self.table[name].to_numpy()
        return self._columns[name]


def combined(
    matrix: NDArray[np.int64],
    weights: NDArray[np.float64],
    rows: NDArray[np.float64],
    signs: NDArray[np.int64] | int = 1,
) -> NDArray[Any]:
    """The sum of count vectors: raw where all have one weight, else scaled to the effective number of rows.

    >>> vectors, weights, rows = np.array([[2, 2], [1, 0]]), np.array([1.0, 4.0]), np.array([4.0, 1.0])
    >>> combined(vectors, weights, rows), combined(vectors, weights * 0 + 3, rows)
    (array([2.4, 0.8]), array([3, 2]))
    """
    signs = np.broadcast_to(signs, len(matrix))
    if len(np.unique(weights)) <= 1:
        return np.asarray(signs @ matrix, np.int64)
    total = float((signs * weights * rows).sum())
    effective = total**2 / float((signs * weights**2 * rows).sum()) if total else 0.0
    return np.asarray((signs * weights) @ matrix * (effective / total if total else 0.0))


def read_traffic(store: Store, model: Model, start: datetime, end: datetime, known: Hours | None = None) -> Traffic:
    """The traffic of a window, from the profiles of all events.

    known
        The hours of a span that holds the window; they are read where that was not done yet.

    Raises GoneError where only whole hours of it are left, or less.
    """
    layout = model.layout
    place = (store, model.environment, model.name, start, end)
    hours = (known or read_hours(*place)).span(start, end)
    if hours.cut:
        raise GoneError(
            f"model {model.name!r}: of {hours.cut[0]:%Y-%m-%dT%H:%MZ} only the whole hour is kept; "
            "name times that are on the hour"
        )
    refuse_removed(*place)
    table = store.query(
        "window_profiles",
        environment=model.environment,
        model=model.name,
        layout_id=layout.id if layout else "",
        **hours.parameters,
    )
    matrix = vectors(table, layout.size) if layout else np.zeros((table.height, 0), np.int64)
    return Traffic(table.drop("filled", "filled_cells", "filled_counts"), matrix)


def vectors(table: pl.DataFrame, size: int) -> NDArray[np.int64]:
    """A count vector of each row, of its ``filled_cells`` and ``filled_counts``.

    >>> vectors(pl.DataFrame({"filled_cells": [[0, 2], []], "filled_counts": [[5, 6], []]}), 3).tolist()
    [[5, 0, 6], [0, 0, 0]]
    """
    matrix = np.zeros((table.height, size), np.int64)
    rows = np.repeat(np.arange(table.height), table["filled_cells"].list.len().to_numpy())
    cells, counts = (table[name].explode().drop_nulls().to_numpy() for name in ("filled_cells", "filled_counts"))
    matrix[rows, cells] = counts
    return matrix


def refuse_removed(store: Store, environment: str, model: str, start: datetime, end: datetime) -> None:
    """Raise GoneError where the profiles of a span, or a part of them, were removed."""
    until = dict(store.query("removed_until", environment=environment, model=model).iter_rows()).get("hours")
    if until is not None and start < until:
        lost = "a part of" if end > until else "all of"
        raise GoneError(
            f"model {model!r}: profiles of before {until:%Y-%m-%dT%H:%MZ} were removed (retention.hours), "
            f"with them {lost} {start:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ}"
        )
