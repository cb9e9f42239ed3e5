"""Which comparisons are made on a window's traffic, and in which places. The detectors do the maths."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.accuracy import Outcomes, accuracy_drop_finding, accuracy_finding
from detectors.drift import drift_findings
from detectors.errors import errors_finding
from detectors.finding import Finding, Status, Subject, Window
from detectors.latency import latency_finding
from detectors.layout import Layout
from monitor.columns import LATENCY
from monitor.registry import Model
from monitor.windows import Traffic

SUSPICIOUS_P = 1e-3
"""A server this unlike its fleet is also left out once, to see whether a change of the model is only its own."""
TOO_MANY = "not tested: half of the servers or more differ from the others, so it cannot be told which are wrong"
ONE_SERVER = "not tested: a version that runs on a single server cannot be told from the server"
NOT_RANDOM = "not tested: the model's routing is not declared random, so what differs may differ for ever"


@dataclass(frozen=True)
class Measure:
    """The findings of one window of one model.

    baseline_version
        The version that the others are measured against.
    """

    model: Model
    window: Window
    traffic: Traffic
    baseline_version: str

    def findings(self) -> Iterator[Finding]:
        """All that the model's monitors ask for."""
        monitors = self.model.spec.monitors
        layout = self.model.layout
        yield self._volume()
        suspects: list[str] = []
        if layout is not None and "servers" in monitors:
            contrasts = list(self._servers(layout))
            suspects = sorted(
                {f.subject.server for f in contrasts if f.p_value is not None and f.p_value < SUSPICIOUS_P}
            )
            routed = self.model.spec.routing == "random"
            yield from contrasts if routed else (replace(f, p_value=None, message=NOT_RANDOM) for f in contrasts)
        if layout is not None and "drift" in monitors:
            yield from self._drift(layout, suspects)
        if layout is not None and "versions" in monitors:
            yield from self._versions(layout)
        if layout is not None and "latency" in monitors:
            yield from self._latency(layout)
        if "errors" in monitors:
            yield from self._errors()

    def _volume(self) -> Finding:
        rows = self.traffic.rows()
        requests = self.traffic.requests() if rows else 0.0
        effects = {"undeclared_keys": float(self.traffic.undeclared_keys())}
        return Finding(self.window, Subject(), "volume", value=requests, n=rows, effects=effects)

    def _drift(self, layout: Layout, suspects: Sequence[str]) -> Iterator[Finding]:
        for version, reference in sorted(self.model.references.items()):
            where = {"version": version}
            name = f"reference:{reference.name}"
            features = _with_rows(layout, reference.counts)
            if version and not self.traffic.rows(**where):
                continue
            yield from self._compare("drift", Subject(version=version), name, reference.counts, where, features)
            for server in suspects:
                subject = Subject(version=version, without_server=server)
                without = {**where, "without_server": server}
                yield from self._compare("drift", subject, name, reference.counts, without, features)

    def _servers(self, layout: Layout) -> Iterator[Finding]:
        """Each server against the others that serve the same version in the same window."""
        places = self.traffic.places()
        for version in sorted({version for version, _ in places}):
            servers = [server for v, server in places if v == version]
            yield from self._unlike_its_fleet(layout, version, servers)

    def _unlike_its_fleet(self, layout: Layout, version: str, servers: Sequence[str]) -> Iterator[Finding]:
        """Set the server that differs most aside, as long as there is one, and hold the others against the rest.

        Otherwise one bad server, being part of every other one's fleet, would make the good ones look bad.
        """
        fleet = {server: self.traffic.counts(version=version, server=server) for server in servers}
        accused: list[Finding] = []
        while len(fleet) > 1:
            contrasts = {server: self._against(layout, version, server, fleet) for server in fleet}
            worst, severity = max(((s, _worst(c)) for s, c in contrasts.items()), key=lambda x: x[1])
            if severity > 0 and len(fleet) > 2:
                accused += contrasts[worst]
                del fleet[worst]
                continue
            few = 2 * (len(servers) - len(fleet)) < len(servers) and severity == 0
            for finding in (*accused, *(f for findings in contrasts.values() for f in findings)):
                yield finding if few else replace(finding, p_value=None, message=TOO_MANY)
            return

    def _against(self, layout: Layout, version: str, server: str, fleet: Mapping[str, NDArray[Any]]) -> list[Finding]:
        rest = np.sum([counts for name, counts in fleet.items() if name != server], axis=0)
        subject = Subject(version=version, server=server)
        where = {"version": version, "server": server}
        return self._compare("server_outlier", subject, "fleet", rest, where, _with_rows(layout, rest))

    def _versions(self, layout: Layout) -> Iterator[Finding]:
        """Each version against the baseline version in the same window."""
        baseline = self.traffic.counts(version=self.baseline_version) if self.baseline_version else None
        for version in sorted({v for v, _ in self.traffic.places()} - {self.baseline_version}):
            if baseline is not None:
                name = f"version:{self.baseline_version}"
                features = _with_rows(layout, baseline)
                where = {"version": version}
                found = self._compare("version_contrast", Subject(version=version), name, baseline, where, features)
                why_not = _untestable(self.model, self.traffic.places(), version, self.baseline_version)
                yield from (replace(f, p_value=None, message=why_not) for f in found) if why_not else found

    def _compare(
        self,
        detector: str,
        subject: Subject,
        baseline_name: str,
        baseline: NDArray[Any],
        where: dict[str, str],
        features: Collection[str],
    ) -> list[Finding]:
        layout = self.model.layout
        if layout is None:
            return []
        current = self.traffic.counts(**where)
        rows = self.model.spec.minimum_rows
        return drift_findings(self.window, subject, detector, baseline_name, layout, baseline, current, rows, features)

    def _latency(self, layout: Layout) -> Iterator[Finding]:
        span = layout.spans[LATENCY]
        cells = layout.by_name[LATENCY]
        for subject in self._places():
            counts = self.traffic.counts(**_where(subject))[span]
            yield latency_finding(self.window, subject, cells, counts, self.model.spec.minimum_rows)

    def _errors(self) -> Iterator[Finding]:
        for subject in self._places():
            failed, requests = self.traffic.failures(**_where(subject))
            yield errors_finding(self.window, subject, failed, requests, self.model.spec.minimum_rows)

    def _places(self) -> Iterator[Subject]:
        places = self.traffic.places()
        yield Subject()
        for version in sorted({v for v, _ in places}):
            yield Subject(version=version)
        for version, server in places:
            yield Subject(version=version, server=server)


def accuracy_findings(model: Model, window: Window, outcomes: pl.DataFrame, baseline_version: str) -> Iterator[Finding]:
    """Accuracy of each version and server, and each version against the baseline version, at equal label age.

    outcomes: a row per version and server, with sums over predictions and sampling weights.
    """
    task, minimum = model.spec.task, model.spec.minimum_rows
    for row in outcomes.iter_rows(named=True):
        subject = Subject(version=row["version"], server=row["server"])
        yield accuracy_finding(window, subject, _outcomes(row), task, minimum)
    sums = outcomes.drop("server").group_by("version").sum().sort("version")
    by_version = {row["version"]: _outcomes(row) for row in sums.iter_rows(named=True)}
    for version, all_servers in by_version.items():
        yield accuracy_finding(window, Subject(version=version), all_servers, task, minimum)
    baseline = by_version.get(baseline_version)
    places = list(outcomes.select("version", "server").iter_rows())
    for version in by_version.keys() - {baseline_version}:
        if baseline is not None:
            subject = Subject(version=version)
            of_version = by_version[version]
            found = accuracy_drop_finding(window, subject, baseline_version, of_version, baseline, task, minimum)
            why_not = _untestable(model, places, version, baseline_version)
            yield replace(found, p_value=None, message=why_not) if why_not else found


def _outcomes(row: dict[str, Any]) -> Outcomes:
    """Weighted sums as sums over the effective number of labelled rows; with one weight these are the plain sums."""
    if not row["labelled"]:
        return Outcomes(row["predictions"], 0, 0.0, 0.0)
    effective = row["labelled_weights"] ** 2 / row["labelled_weight_squares"]
    scale = effective / row["labelled_weights"]
    predictions = round(row["weights"] * scale)
    return Outcomes(predictions, round(effective), row["losses"] * scale, row["loss_squares"] * scale)


def _untestable(model: Model, places: Collection[tuple[str, str]], version: str, baseline_version: str) -> str:
    """Why two versions cannot be held against each other; empty when they can."""
    if model.spec.routing != "random":
        return NOT_RANDOM
    servers = {v: {s for w, s in places if w == v} for v in (version, baseline_version)}
    return ONE_SERVER if min(map(len, servers.values())) < 2 and servers[version] != servers[baseline_version] else ""


def no_reference(window: Window, rows: int, reason: str) -> Finding:
    """Says in place of drift findings why there are none."""
    return Finding(window, Subject(), "drift", status=Status.NOT_ENOUGH_DATA, n=rows, message=reason)


def _with_rows(layout: Layout, baseline: NDArray[Any]) -> list[str]:
    """The features to compare: those that the baseline has. Latency has a monitor of its own."""
    return [f.name for f in layout.features if f.name != LATENCY and np.any(baseline[layout.spans[f.name]])]


def _worst(contrast: Sequence[Finding]) -> float:
    """The largest severity among the changes that hardly are chance; 0 where there is none."""
    return max((f.severity for f in contrast if f.p_value is not None and f.p_value < SUSPICIOUS_P), default=0.0)


def _where(subject: Subject) -> dict[str, str]:
    return {"version": subject.version, "server": subject.server}
