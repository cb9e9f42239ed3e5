"""Which comparisons are made on a window's traffic, and in which places. The detectors do the maths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.accuracy import Outcomes, accuracy_drop_finding, accuracy_finding
from detectors.calibration import ONE_SIDED, Mode
from detectors.drift import drift_findings
from detectors.errors import errors_finding
from detectors.faults import fault
from detectors.finding import Finding, Status, Subject, Window
from detectors.latency import latency_finding
from detectors.layout import Layout
from detectors.places import shared_change
from monitor.columns import LATENCY
from monitor.registry import Model
from monitor.usual import HISTORY, Expected, UsualScores
from monitor.windows import Traffic, whole_hours

SUSPICIOUS_P = 1e-3
"""Places this unlike the others are also left out once, to see whether a change of the model is only theirs."""
POSSIBLE_P = 0.05
"""Whether a change of the model is only one place's is asked where the model may have changed at all."""
TOO_MANY = "not tested: half of the servers or more differ from the others, so it cannot be told which are wrong"
ONE_SERVER = "not tested: a version that runs on a single server cannot be told from the server"
NOT_RANDOM = "not tested: the model's routing is not declared random, so what differs may differ for ever"


LEARNING = "not tested: it is being learned what is usual, which takes eight windows and a week after the first week"
NO_PAST = "not tested: hours of this window have no past in the four weeks before"
NOT_WHOLE = "not tested: what is usual is known by whole hours; name a time on the hour"
OTHER_WAY = "not tested: another server of the fleet that it is held against has changed the other way"
FLEET = "fleet"
Suspects = tuple[tuple[str, ...], str]
"""Places that stand out together, as a subject leaves them out, and the feature in which they do."""


@dataclass(frozen=True)
class Place:
    """Rows of the window, and what they are held against.

    exposures
        By feature; see ``drift_findings``. None where both sides are of the same time.
    """

    subject: Subject
    baseline: NDArray[Any]
    current: NDArray[Any]
    exposures: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Against:
    """What drift is measured against: a reference, or the same hours of the weeks before.

    counts, segments
        Over the layout, of everything and of each segment.
    expected
        Of the same hours; None for a reference.
    tested
        Whether it is known how much windows differ from it where nothing happens.
    """

    name: str
    counts: NDArray[Any]
    segments: Mapping[str, NDArray[Any]]
    expected: Expected | None = None
    tested: bool = True

    def exposures(self, segment: str = "") -> Mapping[str, float] | None:
        """See ``Place``."""
        return self.expected.exposures_of(segment) if self.expected else None


@dataclass(frozen=True)
class Measure:
    """The findings of one window of one model.

    baseline_version
        The version that the others are measured against.
    usual
        The scores of earlier windows of this length.
    expected
        What the same hours of the weeks before hold, by version; empty for all of them together.
    """

    model: Model
    window: Window
    traffic: Traffic
    baseline_version: str
    usual: UsualScores = field(default_factory=UsualScores)
    expected: Mapping[str, Expected] = field(default_factory=dict)

    def findings(self) -> Iterator[Finding]:
        """All that the model's monitors ask for."""
        monitors = self.model.spec.monitors
        layout = self.model.layout
        yield self._volume()
        if layout is not None:
            contrasts = list(self._servers(layout)) if "servers" in monitors else []
            between = list(self._versions(layout)) if "versions" in monitors else []
            yield from map(self._if_routed, contrasts)
            yield from self._if_testable(between)
            if "drift" in monitors:
                yield from self._drift(layout, contrasts, between)
            yield from self._between_versions_without(layout, contrasts, between)
            if "latency" in monitors:
                yield from self._latency(layout)
        if "errors" in monitors:
            yield from self._errors()

    def _volume(self) -> Finding:
        rows = self.traffic.rows()
        requests = self.traffic.requests() if rows else 0.0
        effects = {"undeclared_keys": float(self.traffic.undeclared_keys())}
        return Finding(self.window, Subject(), "volume", value=requests, n=rows, effects=effects)

    def _if_routed(self, contrast: Finding) -> Finding:
        """A contrast is testable if servers get the same requests, or if it is known how they usually differ."""
        if self.model.spec.routing == "random" or contrast.mode == Mode.HISTORY or contrast.p_value is None:
            return contrast
        return replace(contrast, p_value=None, message=NOT_RANDOM)

    def _if_testable(self, between: Sequence[Finding]) -> Iterator[Finding]:
        places = self.traffic.places()
        versions = {f.subject.version for f in between}
        alone = {v for v in versions if _runs_alone(places, v, self.baseline_version)}
        for f in between:
            yield replace(f, p_value=None, message=ONE_SERVER) if f.subject.version in alone else self._if_routed(f)

    def _drift(self, layout: Layout, contrasts: Sequence[Finding], between: Sequence[Finding]) -> Iterator[Finding]:
        """Against the past or a reference: everything, each segment, and what moved without the places that stand out.

        A segment is held against its own rows there, as segments differ from each other for ever.
        """
        known = [""] if self._is_known(Subject()) else []
        for version in sorted({*self.model.references, *self.expected, *known}):
            if self.traffic.rows(version=version):
                if self._lost_past(version):
                    rows = self.traffic.rows(version=version)
                    about = (self.window, Subject(version=version), "drift", HISTORY, Status.NOT_ENOUGH_DATA)
                    whole = (self.window.start, self.window.end) == whole_hours(self.window.start, self.window.end)
                    yield Finding(*about, n=rows, message=NO_PAST if whole else NOT_WHOLE)
                    continue
                for against in self._against_what(version):
                    if against.tested:
                        yield from self._drift_from(layout, version, against, contrasts, between)
                    else:
                        found = self._whole_and_segments(layout, version, against)
                        yield from (replace(f, p_value=None, message=LEARNING) for part in found for f in part)

    def _against_what(self, version: str) -> Iterator[Against]:
        """The past once it is known how windows differ from it; until then it is learned, beside any reference."""
        expected, reference = self.expected.get(version), self.model.references.get(version)
        known = expected is not None and self._is_known(Subject(version=version))
        if expected is not None:
            yield Against(HISTORY, expected.counts, expected.segments, expected, tested=known)
        if reference is not None and not known:
            yield Against(f"reference:{reference.name}", reference.counts, reference.segments)

    def _is_known(self, subject: Subject) -> bool:
        usual = self.usual.of("drift", HISTORY, subject)
        return usual is not None and usual.is_known

    def _lost_past(self, version: str) -> bool:
        """A first weekend or night, or parts of hours: against a reference they would be as unlike it as ever."""
        return version not in self.expected and self._is_known(Subject(version=version))

    def _whole_and_segments(
        self, layout: Layout, version: str, against: Against
    ) -> tuple[list[Finding], list[Finding]]:
        """The drift of everything, and of each segment that the other side has, too."""
        current = self.traffic.counts(version=version)
        whole = Place(Subject(version=version), against.counts, current, against.exposures())
        of_segments: list[Finding] = []
        for segment in self.traffic.segments(version=version):
            if segment in against.segments:
                subject = Subject(version=version, segment=segment)
                current = self.traffic.counts(version=version, segment=segment)
                part = Place(subject, against.segments[segment], current, against.exposures(segment))
                compared = self._compare("drift", against.name, layout, part)
                tested = against.expected is None or self._is_known(subject)
                of_segments += compared if tested else [replace(f, p_value=None, message=LEARNING) for f in compared]
        return self._compare("drift", against.name, layout, whole), of_segments

    def _drift_from(
        self,
        layout: Layout,
        version: str,
        against: Against,
        contrasts: Sequence[Finding],
        between: Sequence[Finding],
    ) -> Iterator[Finding]:
        of_all, of_segments = self._whole_and_segments(layout, version, against)
        yield from (*of_all, *of_segments)
        moved = {f.subject.feature for f in of_all if f.p_value is not None and f.p_value < POSSIBLE_P}
        here = [f for f in contrasts if version in ("", f.subject.version)]
        suspects = [*_odd_servers(here), *_odd_segments(of_segments)]
        if not version:
            suspects += self._odd_versions(between)
        for without, features in _by_place(s for s in suspects if s[1] in moved).items():
            yield from self._drift_without(layout, against, version, without, features)

    def _drift_without(
        self, layout: Layout, against: Against, version: str, without: tuple[str, ...], features: Collection[str]
    ) -> Iterator[Finding]:
        """The drift of the rest when some places are left out, and how much of their change it has, too."""
        kind = without[0].partition("=")[0]
        names = [p.removeprefix(f"{kind}=") for p in without if p.startswith(f"{kind}=")]
        current = np.sum([self.traffic.counts(**{"version": version, kind: name}) for name in names], axis=0)
        baseline = rest_baseline = np.asarray(against.counts)
        if kind == "segment":
            baseline = np.asarray(np.sum([against.segments[name] for name in names], axis=0))
            expected = against.expected
            rest_baseline = expected.without(names) if expected else np.maximum(against.counts - baseline, 0)
        subject = Subject(version=version, without=without)
        rest = Place(subject, rest_baseline, self.traffic.counts(without, version=version), against.exposures())
        sides = [side.astype(np.float64) for side in (baseline, current, rest_baseline, rest.current)]
        for finding in self._compare("drift", against.name, layout, rest, features):
            span = layout.spans[finding.subject.feature]
            shared = shared_change(*(side[span] for side in sides))
            effects = {} if shared is None else {"shared": shared.share, "shared_high": shared.high}
            yield replace(finding, effects={**finding.effects, **effects})

    def _servers(self, layout: Layout) -> Iterator[Finding]:
        """Each server against the others that serve the same version in the same window."""
        places = self.traffic.places()
        for version in sorted({version for version, _ in places}):
            servers = [server for v, server in places if v == version]
            yield from self._unlike_its_fleet(layout, version, servers)

    def _unlike_its_fleet(self, layout: Layout, version: str, servers: Sequence[str]) -> Iterator[Finding]:
        """Set the server that differs most aside, as long as there is one, and hold the others against the rest.

        Otherwise one bad server, being part of every other one's fleet, would make the good ones look bad. In features
        in which it is like the others it does no harm, so those are not compared again.
        """
        fleet = {server: self.traffic.counts(version=version, server=server) for server in servers}
        if len(fleet) < 2:
            return
        contrasts = {server: self._against(layout, version, server, fleet) for server in fleet}
        if self.model.spec.routing != "random":
            yield from but_for_the_worst(contrasts)
            return
        accused: list[Finding] = []
        while True:
            worst, severity = max(((s, _worst(contrasts[s])) for s in fleet), key=lambda x: x[1])
            if severity == 0 or len(fleet) == 2:
                break
            accused += contrasts[worst].values()
            del fleet[worst]
            odd = [feature for feature, f in contrasts[worst].items() if _suspicious(f, 1)]
            for server in fleet:
                contrasts[server] |= self._against(layout, version, server, fleet, odd)
        few = 2 * (len(servers) - len(fleet)) < len(servers) and severity == 0
        for finding in (*accused, *(f for server in fleet for f in contrasts[server].values())):
            yield finding if few else replace(finding, p_value=None, message=TOO_MANY)

    def _against(
        self,
        layout: Layout,
        version: str,
        server: str,
        fleet: Mapping[str, NDArray[Any]],
        features: Collection[str] | None = None,
    ) -> dict[str, Finding]:
        """One server against the rest, by feature."""
        rest = np.sum([counts for name, counts in fleet.items() if name != server], axis=0)
        place = Place(Subject(version=version, server=server), rest, fleet[server])
        return {f.subject.feature: f for f in self._compare("server_outlier", FLEET, layout, place, features)}

    def _versions(self, layout: Layout) -> Iterator[Finding]:
        """Each version against the baseline version in the same window."""
        if self.baseline_version:
            baseline = self.traffic.counts(version=self.baseline_version)
            for version in sorted({v for v, _ in self.traffic.places()} - {self.baseline_version}):
                place = Place(Subject(version=version), baseline, self.traffic.counts(version=version))
                yield from self._compare("version_contrast", f"version:{self.baseline_version}", layout, place)

    def _between_versions_without(
        self, layout: Layout, contrasts: Sequence[Finding], between: Sequence[Finding]
    ) -> Iterator[Finding]:
        """The versions held against each other again without the servers that stand out."""
        odd = {f.subject.feature for f in between if _suspicious(f, 1)}
        for without, features in _by_place(s for s in _odd_servers(contrasts) if s[1] in odd).items():
            baseline = self.traffic.counts(without, version=self.baseline_version)
            for version in sorted({f.subject.version for f in between}):
                current = self.traffic.counts(without, version=version)
                place = Place(Subject(version=version, without=without), baseline, current)
                found = self._compare("version_contrast", f"version:{self.baseline_version}", layout, place, features)
                yield from self._if_testable(found)

    def _odd_versions(self, between: Sequence[Finding]) -> Iterator[Suspects]:
        """Where versions differ in a feature, it is not known which of them changed: those, or all the others."""
        places = self.traffic.places()
        everything = {v for v, _ in places}
        versions = len(everything) - 1
        for feature in sorted({f.subject.feature for f in between}):
            odd = {f.subject.version for f in between if f.subject.feature == feature and _suspicious(f, versions)}
            if odd:
                yield _named_versions(odd, places), feature
                yield _named_versions(everything - odd, places), feature

    def _compare(
        self, detector: str, baseline: str, layout: Layout, place: Place, features: Collection[str] | None = None
    ) -> list[Finding]:
        """The one way in which features are compared: those named, or all that the baseline has."""
        compared = _with_rows(layout, place.baseline)
        if features is not None:
            compared = [name for name in compared if name in features]
        rows = self.model.spec.minimum_rows
        about = (self.window, place.subject, detector, baseline, layout)
        lasting = detector != "drift" and self.model.spec.routing != "random"
        usual = self.usual.of(detector, baseline, place.subject, lasting=lasting)
        found = drift_findings(*about, place.baseline, place.current, rows, compared, usual, place.exposures)
        return [_as_fault(f, layout, place) if _suspicious(f, 1) else f for f in found]

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
    return ONE_SERVER if _runs_alone(places, version, baseline_version) else ""


def _runs_alone(places: Collection[tuple[str, str]], version: str, baseline_version: str) -> bool:
    """Whether one of two versions runs on a single server on which the other does not run."""
    servers = {v: {s for w, s in places if w == v} for v in (version, baseline_version)}
    return min(map(len, servers.values())) < 2 and servers[version] != servers[baseline_version]


def no_reference(window: Window, rows: int, reason: str) -> Finding:
    """Says in place of drift findings why there are none."""
    return Finding(window, Subject(), "drift", status=Status.NOT_ENOUGH_DATA, n=rows, message=reason)


def _with_rows(layout: Layout, baseline: NDArray[Any]) -> list[str]:
    """The features to compare: those that the baseline has. Latency has a monitor of its own."""
    return [f.name for f in layout.features if f.name != LATENCY and np.any(baseline[layout.spans[f.name]])]


def _worst(contrast: Mapping[str, Finding]) -> float:
    """The largest severity among the changes that hardly are chance; 0 where there is none."""
    return max((f.severity for f in contrast.values() if _suspicious(f, 1)), default=0.0)


def _suspicious(finding: Finding, comparisons: int) -> bool:
    """Whether what one of several alike comparisons found hardly is chance."""
    return finding.p_value is not None and finding.p_value * comparisons < SUSPICIOUS_P


def but_for_the_worst(contrasts: Mapping[str, Mapping[str, Finding]]) -> Iterator[Finding]:
    """Contrasts of servers that differ for ever: none can be set aside, as what is known is how each is unlike all.

    Where a server changes, the others move the other way against a fleet that holds it. They are not accused of that.
    """
    worst: dict[str, Finding] = {}
    for of_server in contrasts.values():
        for feature, f in of_server.items():
            if _suspicious(f, 1) and (feature not in worst or f.severity > worst[feature].severity):
                worst[feature] = f
    for of_server in contrasts.values():
        for feature, f in of_server.items():
            most = worst.get(feature, f)
            yield replace(f, p_value=None, message=OTHER_WAY) if f is not most and _go_apart(f, most) else f


def _go_apart(one: Finding, other: Finding) -> bool:
    """Whether they differ from their fleets in opposite ways, where the other differs most of what has a direction.

    A score that nobody had before, such as that of values that were never seen, is taken as for independent rows.
    """
    ours, theirs = ({**f.scores, **f.calibrated} for f in (one, other))
    both = [name for name in theirs if name in ours and name not in ONE_SIDED]
    most = other.component if other.component in both else max(both, key=lambda name: abs(theirs[name]), default="")
    return bool(most) and ours[most] * theirs[most] < 0


def _odd_servers(contrasts: Sequence[Finding]) -> Iterator[Suspects]:
    """For each feature the servers that stand out in it."""
    servers = len({f.subject.server for f in contrasts})
    odd: dict[str, set[str]] = defaultdict(set)
    for f in contrasts:
        if _suspicious(f, servers):
            odd[f.subject.feature].add(f"server={f.subject.server}")
    yield from ((tuple(sorted(places)), feature) for feature, places in sorted(odd.items()))


def _odd_segments(drift: Sequence[Finding]) -> Iterator[Suspects]:
    """For each feature and each key of segments the values that changed, where others of the key did not."""
    of_key: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    segments = len({f.subject.segment for f in drift})
    for f in drift:
        if f.status is Status.MEASURED:
            key = f.subject.segment.partition("=")[0]
            of_key[f.subject.feature, key][f"segment={f.subject.segment}"] = _suspicious(f, segments)
    for (feature, _), changed in sorted(of_key.items()):
        if any(changed.values()) and not all(changed.values()):
            yield tuple(sorted(place for place, odd in changed.items() if odd)), feature


def _named_versions(versions: Collection[str], places: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """Versions as places; of a single one that runs on a single server, that too."""
    named = tuple(sorted(f"version={v}" for v in versions))
    servers = {s for v, s in places if v in versions}
    return (*named, *(f"server={s}" for s in servers)) if len(versions) == len(servers) == 1 else named


def _by_place(suspects: Iterable[Suspects]) -> dict[tuple[str, ...], list[str]]:
    features: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for without, feature in suspects:
        features[without].append(feature)
    return features


def _as_fault(finding: Finding, layout: Layout, place: Place) -> Finding:
    """The finding, with a fault of the whole column as its component where it looks like one."""
    span, cells = layout.spans[finding.subject.feature], layout.by_name[finding.subject.feature]
    name = fault(cells, place.baseline[span], place.current[span])
    return replace(finding, component=name) if name else finding


def _where(subject: Subject) -> dict[str, str]:
    return {"version": subject.version, "server": subject.server}
