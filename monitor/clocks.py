"""How far the clocks of servers are off: what their events' times and their arrival tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.fleet import skews
from monitor.columns import PredictionColumns
from monitor.decode import Fields
from monitor.store import Store


@dataclass(frozen=True)
class Clock:
    """What is known of a server's clock.

    delay
        Seconds from an event to its arrival, as its quickest have it: the way, plus how far the clock is behind.
    skew
        Seconds that the clock seems to be ahead of the fleet's: the fleet's median delay less this one.
    batches
        How many told it.
    """

    delay: float
    skew: float
    batches: int


def least_delays(
    events: Mapping[tuple[str, str], Sequence[Fields]],
    columns: Iterable[tuple[str, PredictionColumns]],
    arrivals: NDArray[np.float64],
) -> pl.DataFrame:
    """The clock columns of ``batches`` for the predictions of one batch.

    events
        Those that went line by line, by environment and model.
    columns
        The others, with their environment.
    arrivals
        When each line had arrived, in epoch seconds.
    """
    found: dict[tuple[str, str], float] = {}
    for (environment, _), some in events.items():
        for event in some:
            place = environment, event["server"]
            delay = arrivals[event["row"]] - event["at"]
            if delay < found.get(place, np.inf):
                found[place] = delay
    by_environment: dict[str, list[PredictionColumns]] = defaultdict(list)
    for environment, some_columns in columns:
        by_environment[environment].append(some_columns)
    for environment, parts in by_environment.items():
        servers = pl.concat([c.texts["server"] for c in parts]).to_arrow(compat_level=pl.CompatLevel.oldest())
        coded = servers.dictionary_encode()
        least = np.full(len(coded.dictionary), np.inf)
        delays = np.concatenate([arrivals[c.row] - c.at for c in parts])
        np.minimum.at(least, coded.indices.to_numpy(), delays)
        for server, delay in zip(coded.dictionary.to_pylist(), least.tolist(), strict=True):
            found[environment, server] = min(delay, found.get((environment, server), np.inf))
    places = sorted(found)
    texts = pl.List(pl.String)
    return pl.DataFrame(
        {
            "clock_environments": pl.Series([[environment for environment, _ in places]], dtype=texts),
            "clock_servers": pl.Series([[server for _, server in places]], dtype=texts),
            "clock_delays": pl.Series([[round(found[p] * 1000) for p in places]], dtype=pl.List(pl.Int64)),
        }
    )


def read_clocks(store: Store, environment: str, start: datetime, end: datetime) -> dict[str, Clock]:
    """The clock of each server of which something arrived in a span."""
    table = store.query("clocks", environment=environment, start=start, end=end)
    delays = {row["server"]: row["delay_ms"] / 1000 for row in table.iter_rows(named=True)}
    ahead = skews(delays)
    batches = dict(table.select("server", "batches").iter_rows())
    return {server: Clock(delay, ahead[server], batches[server]) for server, delay in delays.items()}
