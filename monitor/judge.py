"""Judging windows: read what a window needs, measure it, and keep the findings.

``now`` is always given, so that a replay of the past runs the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from detectors.finding import Finding, Status, Subject, Window
from detectors.health import health_finding
from detectors.layout import LayoutError
from detectors.seasons import SPAN
from monitor.conflicts import fleet_findings
from monitor.findings import save_findings
from monitor.fleet import BEGINNING, served
from monitor.folding import HOUR, Hours, add_up, read_hours
from monitor.gradual import gradual_findings
from monitor.joint import joint_findings
from monitor.late import Judgement, Kind, count_marks, judged_outcomes, judged_traffic, save_judgement
from monitor.measure import Measure, accuracy_findings, no_reference
from monitor.past import PAST, Past, read_past
from monitor.reference import References, window_name
from monitor.registry import Model
from monitor.schema import schema_findings
from monitor.silence import silence_findings
from monitor.store import Store
from monitor.usual import HISTORY, Expected, Learned, read_expected, read_usual_scores
from monitor.windows import Traffic, floor, is_due, read_traffic, refuse_removed, whole_hours

DAY = timedelta(days=1)
NO_REFERENCE = "the model has no reference yet: register one, or name a past window in the configuration"


@dataclass(frozen=True)
class JudgedAgain:
    """What a window came to when it was judged again.

    judgement
        To be kept once it is decided on the findings: until then the window is late.
    more
        So many more events than the time before.
    """

    findings: list[Finding]
    judgement: Judgement
    more: int


@dataclass(frozen=True)
class Judge:
    """Measures windows of models and keeps the findings."""

    store: Store
    references: References

    def traffic(self, model: Model, window: Window, now: datetime) -> list[Finding]:
        """Drift, contrasts, latency, errors and volume, from all events of a window."""
        findings, judgement = self._judged_traffic(model, window, now)
        if is_due(model, window):
            save_judgement(self.store, judgement, model, now)
        return findings

    def labels(self, model: Model, window: Window, now: datetime) -> list[Finding]:
        """Accuracy of the predictions of a window. All have had ``label_delay`` to get their labels."""
        if "accuracy" not in model.spec.monitors:
            return []
        findings, judgement = self._judged_labels(model, window, now)
        if is_due(model, window):
            save_judgement(self.store, judgement, model, now)
        return findings

    def anew(self, model: Model, window: Window, kind: Kind, learned: Learned | None = None) -> list[Finding]:
        """What is found in a window with the reference that the model has. Nothing is kept. Raises GoneError.

        learned
            What was found in the windows before it that are not kept either.
        """
        if kind == "labels":
            if "accuracy" not in model.spec.monitors:
                return []
            refuse_removed(self.store, model.environment, model.name, *whole_hours(window.start, window.end))
            return self._of_labels(model, window, self._read_outcomes(model, window)[1])
        known = self._hours(model, window)
        traffic = read_traffic(self.store, model, window.start, window.end, known)
        problem = "" if model.references else NO_REFERENCE
        return self._of_traffic(model, window, traffic, known, problem, learned)

    def again(self, model: Model, judged: Judgement, now: datetime) -> JudgedAgain | None:
        """Judge a window again if its events are others by now. None: they are the same."""
        window = judged.window
        if judged.kind == "traffic":
            current, _, _ = self._read(model, window, now)
            measure = self._judged_traffic
        else:
            current, _ = self._read_outcomes(model, window)
            measure = self._judged_labels
        if current.digest == judged.digest:
            save_judgement(self.store, current, model, now)
            return None
        return JudgedAgain(*measure(model, window, now), current.events - judged.events)

    def failed(self, window: Window, kind: str, error: Exception, now: datetime) -> list[Finding]:
        """What stands in place of a window's findings when it could not be judged: an error, never "all is well"."""
        detectors = ("drift", "server_outlier", "version_contrast") if kind == "traffic" else ("accuracy_drop",)
        message = f"{type(error).__name__}: {str(error)[:200]}"
        findings = [Finding(window, Subject(), d, status=Status.ERROR, message=message) for d in detectors]
        save_findings(self.store, findings, now)
        return findings

    def _judged_traffic(self, model: Model, window: Window, now: datetime) -> tuple[list[Finding], Judgement]:
        model, problem = self._with_reference(model, now)
        judgement, traffic, known = self._read(model, window, now)
        findings = self._of_traffic(model, window, traffic, known, problem)
        findings.extend(joint_findings(self.store, model, window, findings))
        save_findings(self.store, findings, now)
        return findings, judgement

    def _judged_labels(self, model: Model, window: Window, now: datetime) -> tuple[list[Finding], Judgement]:
        judgement, outcomes = self._read_outcomes(model, window)
        findings = self._of_labels(model, window, outcomes)
        save_findings(self.store, findings, now)
        return findings, judgement

    def _read(self, model: Model, window: Window, now: datetime) -> tuple[Judgement, Traffic, Hours]:
        """The traffic of a window, from whole hours where they are added up, and the hours that this is from.

        The hours are read once, with their marks, before any events: what comes in meanwhile is late.
        """
        span = (window.start, window.end)
        read = self._hours(model, window)
        known = add_up(self.store, read, *span, now)
        traffic = read_traffic(self.store, model, *span, known)
        if model.layout is not None and traffic.unplaced():
            self.references.complete(model, *span)
            known = self._hours(model, window)  # what was completed was written anew
            traffic = read_traffic(self.store, model, *span, known)
        return judged_traffic(window, read.marks(*span), traffic), traffic, known

    def _hours(self, model: Model, window: Window) -> Hours:
        """All hours that a window is judged by: its own, those it is held against, and those that say what served."""
        start = min(window.start - SPAN, floor(window.end - PAST, HOUR))
        return read_hours(self.store, model.environment, model.name, start, window.end)

    def _read_outcomes(self, model: Model, window: Window) -> tuple[Judgement, pl.DataFrame]:
        marks = count_marks(self.store, window, window.end + model.spec.label_delay)
        outcomes = self.store.query(
            "outcomes",
            environment=model.environment,
            model=model.name,
            start=window.start,
            end=window.end,
            label_delay_ms=model.spec.label_delay // timedelta(milliseconds=1),
            task=model.spec.task,
        )
        return judged_outcomes(window, marks, outcomes), outcomes

    def _of_traffic(
        self,
        model: Model,
        window: Window,
        traffic: Traffic,
        known: Hours,
        problem: str,
        learned: Learned | None = None,
    ) -> list[Finding]:
        expected = self._expected(model, window, known) if "drift" in model.spec.monitors else {}
        usual = read_usual_scores(self.store, model, window, learned)
        baseline_version = self._baseline_version(model, window, traffic)
        findings = list(Measure(model, window, traffic, baseline_version, usual, expected).findings())
        usually = usual.of("drift", HISTORY, Subject())
        is_known = usually is not None and usually.is_known
        if problem and not expected and not is_known and "drift" in model.spec.monitors:
            findings.append(no_reference(window, traffic.rows(), problem))
        findings.extend(gradual_findings(self.store, model, window, findings, usual))
        past = read_past(self.store, model, window.end, known)
        findings.extend(self._health(window, past))
        findings.extend(self._observed(model, window, traffic, past, known))
        return findings

    def _of_labels(self, model: Model, window: Window, outcomes: pl.DataFrame) -> list[Finding]:
        return list(accuracy_findings(model, window, outcomes, self._accuracy_baseline(model, window, outcomes)))

    def _expected(self, model: Model, window: Window, known: Hours) -> dict[str, Expected]:
        """What the same hours of the weeks before hold, also of each version with a reference of its own."""
        found = {v: read_expected(self.store, model, window, v, known) for v in sorted({"", *model.references})}
        return {version: expected for version, expected in found.items() if expected is not None}

    def _observed(self, model: Model, window: Window, traffic: Traffic, past: Past, known: Hours) -> Iterator[Finding]:
        """What is seen without a test: features, servers and versions that came, went, or are not what they were."""
        if "schema" in model.spec.monitors:
            yield from schema_findings(self.store, model, window, traffic, past, known)
        if "silence" in model.spec.monitors:
            yield from silence_findings(self.store, model, window, traffic, past)
        if "fleet" in model.spec.monitors:
            yield from fleet_findings(self.store, model, window, traffic, past)

    def _health(self, window: Window, past: Past) -> Iterator[Finding]:
        """Health checks of the servers that served the model in the day before the window's end."""
        servers = past.servers_since(window.end - DAY)
        probes = self.store.query("probes", environment=window.environment, start=window.start, end=window.end)
        for row in probes.iter_rows(named=True):
            if row["server"] in servers:
                subject = Subject(server=row["server"])
                yield health_finding(window, subject, row["failures"], row["probes"], row["latency_p95_ms"])

    def _with_reference(self, model: Model, now: datetime) -> tuple[Model, str]:
        """The model with its layout and reference made, or the reason why there is none."""
        spec = model.spec.reference
        try:
            if spec is not None and spec.window is not None and spec.window.end <= now:
                known = model.references.get("")
                if known is None or known.name != window_name(spec.window):
                    return self.references.from_window(model, spec.window, now), ""
            if model.references:
                return model, ""
            if model.layout is None:
                model = self.references.layout_from_rows(model, now)
            if model.references:  # another process has registered one meanwhile
                return model, ""
        except LayoutError as error:
            return model, str(error)
        return model, NO_REFERENCE

    def _baseline_version(self, model: Model, window: Window, traffic: Traffic) -> str:
        """Of the versions that serve in the window, the one that was there first; the others are held against it."""
        versions = {version for version, _ in traffic.places()}
        if len(versions) <= 1:
            return "".join(versions)
        return next(v for v in self._versions_by_age(model, window, BEGINNING) if v in versions)

    def _accuracy_baseline(self, model: Model, window: Window, outcomes: pl.DataFrame) -> str:
        """The same for accuracy, where it is needed: versions may have served in the window without one outcome."""
        versions = set(outcomes["version"].to_list())
        if len(versions) <= 1:
            return ""
        span = whole_hours(window.start, window.end)  # by the time that labels are there, only those may be left
        oldest = self._versions_by_age(model, window, span[0])[0]
        if oldest in versions:
            return oldest
        return self._baseline_version(model, window, read_traffic(self.store, model, *span))

    def _versions_by_age(self, model: Model, window: Window, since: datetime) -> list[str]:
        """The versions that served after a time, up to a window's end; the one that was there first is the first."""
        until_now = served(self.store, model.environment, model.name, BEGINNING, window.end)
        seen = until_now.group_by("version").agg(pl.col("first_seen").min(), pl.col("last_seen").max())
        lately = seen.filter(pl.col("last_seen") >= since).sort("first_seen", "version")
        return lately["version"].to_list()
