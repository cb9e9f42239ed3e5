"""Where the fleet is not what it should be: versions that nobody released there, retired ones, odd clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from detectors.finding import Finding, Subject, Window
from detectors.fleet import clock_finding, place_finding
from monitor.clocks import read_clocks
from monitor.fleet import BEGINNING, served
from monitor.past import Past
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import Traffic

GRACE = timedelta(minutes=10)
"""A version may serve so long before it is announced, and after it is retired."""


def fleet_findings(store: Store, model: Model, window: Window, traffic: Traffic, past: Past) -> Iterator[Finding]:
    """Detector ``fleet``: a finding for each version on a server, where releases are announced, and for each clock."""
    yield from _places(store, model, window, traffic, past)
    serving = {server for _, server in traffic.places()}
    clocks = read_clocks(store, model.environment, window.start, window.end)
    for server, clock in clocks.items():
        if server in serving:
            yield clock_finding(window, server, clock.delay, clock.skew, clock.batches, len(clocks))


def _places(store: Store, model: Model, window: Window, traffic: Traffic, past: Past) -> Iterator[Finding]:
    if past.releases.is_empty():
        return
    seen = {(row["version"], row["server"]): row for row in past.places().iter_rows(named=True)}
    problems: dict[tuple[str, str], str] = {}
    for place in traffic.places():
        retired = past.retired(*place)
        if place not in seen:  # it was long ago, in a long window
            continue
        if retired is not None and seen[place]["last_seen"] > retired + GRACE:
            problems[place] = "retired"
        elif not past.announced(*place) and seen[place]["first_seen"] < window.end - GRACE:
            problems[place] = "unreleased"
    if "unreleased" in problems.values():
        # Nobody can have announced what served before anything was.
        first = past.releases["timestamp"].min()
        table = served(store, model.environment, model.name, BEGINNING, window.end)
        before = table.filter(pl.col("first_seen") < first).select("version", "server").rows()
        problems = {p: problem for p, problem in problems.items() if problem == "retired" or p not in before}
    for place in traffic.places():
        version, server = place
        rows = traffic.rows(version=version, server=server)
        yield place_finding(window, Subject(version, server), rows, problems.get(place, ""))
