"""Schema changes: keys that nobody declared, features that are not what they were, versions under another name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.drift import SHARE_TOLERANCE
from detectors.finding import Finding, Status, Subject, Window
from detectors.layout import FeatureCells
from detectors.schema import OUTPUT_MARK, broken, broken_finding, undeclared_finding, where
from monitor.columns import PredictionColumns
from monitor.fleet import SIDE_BY_SIDE
from monitor.folding import Hours
from monitor.past import Past, listed
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import Traffic, read_traffic

DAY = timedelta(days=1)
NEW_FOR = timedelta(days=7)
"""A key that has come for longer is taken for usual."""
LOOKED_BACK = timedelta(days=8)
ROWS_WITHOUT = 1000
"""A key is new only if so many rows came before it: in fewer it may just not have been seen yet."""
MOST_NAMES = 100
LONGEST_NAME = 200
FACT = 1.0
"""The severity of what has no size, where it counts."""
Counts = NDArray[Any]


def undeclared_keys(model: Model, columns: PredictionColumns) -> pl.DataFrame:
    """The rows of ``undeclared_keys`` for some predictions, without their source and batch.

    Only the most common names are kept, as somebody may log ids for names; the others are counted together, as ''.
    """
    live = (columns.texts["role"] == "live").to_numpy()
    rows = np.flatnonzero((columns.undeclared > 0) & live)
    declared = model.spec.features
    texts = (columns.texts[name].gather(rows).to_list() for name in ("version", "server"))
    minutes = (columns.at[rows] // 60).astype(np.int64) * 60_000
    totals: Counter[str] = Counter()
    found: list[tuple[str, str, int, str]] = []
    for row, version, server, minute in zip(rows.tolist(), *texts, minutes.tolist(), strict=True):
        names = [n[:LONGEST_NAME] for n in columns.extras[row] or () if n not in declared]
        totals.update(names)
        found += [(version, server, minute, name) for name in names]
    kept = set(sorted(totals, key=lambda n: (-totals[n], n))[:MOST_NAMES])
    counts = Counter((*place, name if name in kept else "") for *place, name in found)
    schema = {"version": pl.String, "server": pl.String, "minute": pl.Int64, "name": pl.String}
    return pl.DataFrame(list(counts), schema, orient="row").with_columns(
        pl.col("minute").cast(pl.Datetime("ms", "UTC")),
        pl.Series("n", list(counts.values()), pl.UInt64),
        environment=pl.lit(model.environment),
        model=pl.lit(model.name),
    )


def schema_findings(
    store: Store, model: Model, window: Window, traffic: Traffic, past: Past, known: Hours
) -> Iterator[Finding]:
    """Detector ``schema``: a finding for each change, and one without severity for each place that was looked at.

    known
        The hours of a span that holds the window and the day before.
    """
    servers: dict[str, list[str]] = {}
    for version, server in traffic.places():
        servers.setdefault(version, []).append(server)
    versions = []
    for version, on in servers.items():
        rows = traffic.rows(version=version)
        if rows < model.spec.minimum_rows:
            few = f"{rows} rows; {model.spec.minimum_rows} are needed"
            yield Finding(window, Subject(version), "schema", status=Status.NOT_ENOUGH_DATA, n=rows, message=few)
            continue
        enough = [s for s in on if traffic.rows(version=version, server=s) >= model.spec.minimum_rows]
        for server in ("", *enough):
            n = traffic.rows(version=version, server=server)
            yield Finding(window, Subject(version, server), "schema", value=0.0, n=n)
        versions.append((version, enough))
    yield from _without_cells(model, window, traffic)
    yield from _undeclared(store, model, window, traffic, past, dict(versions))
    yield from _broken(store, model, window, traffic, known, dict(versions))
    yield from _renamed(window, traffic, past)


def _without_cells(model: Model, window: Window, traffic: Traffic) -> Iterator[Finding]:
    """Features that were declared after the model's cells were made, which never change: nothing compares them."""
    if model.layout is None:
        return
    for name in sorted(model.spec.features.keys() - model.layout.by_name.keys()):
        told = f"feature {name!r} is not compared: it was declared after the model's cells were made"
        about = (window, Subject(feature=name), "schema")
        yield Finding(*about, n=traffic.rows(), component="no cells", message=told)


def _undeclared(
    store: Store, model: Model, window: Window, traffic: Traffic, past: Past, versions: dict[str, list[str]]
) -> Iterator[Finding]:
    if not traffic.undeclared_keys():
        return
    asked = {"environment": model.environment, "model": model.name}
    keys = store.query("undeclared_keys", **asked, start=window.start, end=window.end)
    since = dict(store.query("first_undeclared", **asked, start=window.end - LOOKED_BACK, end=window.end).iter_rows())
    for (version, name), rows in keys.group_by(["version", "name"], maintain_order=True):
        if version not in versions:
            continue
        events = dict(rows.select("server", "events").iter_rows())
        new = since[name] > window.end - NEW_FOR and past.rows_before(since[name]) >= ROWS_WITHOUT
        shares = {s: events.get(s, 0) / traffic.rows(version=version, server=s) for s in versions[version]}
        for server in where({s: share >= SHARE_TOLERANCE for s, share in shares.items()}, together=True):
            subject = Subject(str(version), server, feature=str(name))
            n = traffic.rows(version=version, server=server)
            yield undeclared_finding(window, subject, events[server] if server else sum(events.values()), n, new=new)


def _broken(
    store: Store, model: Model, window: Window, traffic: Traffic, known: Hours, versions: dict[str, list[str]]
) -> Iterator[Finding]:
    """Features that vanished or are of another kind, against the reference, or else the day before."""
    layout = model.layout
    if layout is None:
        return
    before: Counts | None = None
    for version, servers in versions.items():
        counts = {s: traffic.counts(version=version, server=s) for s in ("", *servers)}
        reference = model.references.get(version) or model.references.get("")
        for cells in (cells for cells in layout.features if not cells.name.startswith(OUTPUT_MARK)):
            span = layout.spans[cells.name]
            here = {server: of_place[span] for server, of_place in counts.items()}
            baseline, name = (reference.counts[span], f"reference:{reference.name}") if reference else (None, "")
            if baseline is None or not baseline[: cells.valued].any():
                if not any(_odd(cells, of_place) for of_place in here.values()):
                    continue
                if before is None:  # rarely needed, and as dear as reading a day
                    before = read_traffic(store, model, window.start - DAY, window.start, known).counts()
                baseline, name = before[span], "day before"
                if baseline.sum() < model.spec.minimum_rows:
                    continue
            found = {server: broken(cells, baseline, of_place) for server, of_place in here.items()}
            for component in sorted({c for c in found.values() if c}):
                flags = {s: found[s] == component for s in servers}
                for server in where(flags, together=found[""] == component):
                    subject = Subject(version, server)
                    yield broken_finding(window, subject, component, cells, name, baseline, here[server])


def _odd(cells: FeatureCells, counts: Counts) -> bool:
    """Whether most rows have no usable value."""
    return bool(counts[: cells.valued].sum() < counts.sum() / 2)


def _renamed(window: Window, traffic: Traffic, past: Past) -> Iterator[Finding]:
    """Versions to which all traffic of a server went over from another one, with nobody announcing them.

    Where nobody announces anything, that is how versions are released there, and it is said without severity; so it is
    a day later.
    """
    places = past.places()
    first = dict(places.group_by("version").agg(pl.col("first_seen").min()).iter_rows())
    serving = set(traffic.places())
    for version in sorted({v for v, _ in serving}):
        age = window.end - first.get(version, window.start - LOOKED_BACK)
        if age > LOOKED_BACK:
            continue
        announced = past.announced(version)
        for old, servers in _taken_over(places, version).items():
            had = places.filter(pl.col("version") == old)["server"].to_list()
            for server in [""] if set(servers) == set(had) else servers:
                told = f"version {version} took over all traffic of version {old} on {server or listed(servers)}"
                n = traffic.rows(version=version, server=server)
                yield Finding(
                    window,
                    Subject(version, server),
                    "schema",
                    f"version:{old}",
                    n=n,
                    component="" if announced else "renamed",
                    severity=FACT if announced is False and age < DAY else 0.0,
                    message="" if announced else f"{told}, and nobody announced it",
                )


def _taken_over(places: pl.DataFrame, version: str) -> dict[str, list[str]]:
    """The versions that a new one followed at once, with the servers where it did."""
    found: dict[str, list[str]] = {}
    for server, first_seen in places.filter(pl.col("version") == version).select("server", "first_seen").iter_rows():
        others = places.filter((pl.col("server") == server) & (pl.col("version") != version)).sort("last_seen")
        if others.height and abs(others["last_seen"][-1] - first_seen) <= SIDE_BY_SIDE:
            found.setdefault(others["version"][-1], []).append(server)
    return found
