"""What the page shows, as plain values: fleet, latest windows, pictures of what changed, and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detectors.effects import named_statistics
from detectors.finding import Finding, Status, worst_first
from detectors.layout import FeatureCells
from monitor.findings import finding_to_dict, latest_findings
from monitor.fleet import BEGINNING
from monitor.folding import GoneError
from monitor.registry import Model
from monitor.usual import HISTORY, read_expected
from monitor.windows import read_traffic

if TYPE_CHECKING:
    from monitor.service import Service

MOST_PICTURES = 6
MOST_FINDINGS = 5_000
MOST_ENTRIES = 100
MOST_BARS = 34
Sides = tuple[NDArray[np.float64], NDArray[np.float64]]


def overview(service: Service) -> dict[str, Any]:
    """All that the page shows."""
    status = service.status()
    alerts = service.alerts()
    latest = service.ledger.timeline(newest_first=True, limit=MOST_ENTRIES)
    return {
        "now": status["now"],
        "rows": status["rows"],
        "firing": alerts["firing"],
        "timeline": [e.as_line() for e in latest],
        "servers": service.servers(),
        "models": [_model(service, m) for m in service.registry.models()],
    }


def _model(service: Service, model: Model) -> dict[str, Any]:
    findings = latest_findings(service.store, model.environment, model.name, BEGINNING, MOST_FINDINGS)
    return {
        "model": model.name,
        "environment": model.environment,
        "task": model.spec.task,
        "owner": model.spec.owner,
        "references": sorted(r.name for r in model.references.values()),
        "fleet": service.fleet(model.name, environment=model.environment),
        "accuracy": _per_version(service, model, "accuracy"),
        "latency": _per_version(service, model, "latency"),
        "latest": _latest(model, findings),
        "pictures": pictures(service, model, findings),
    }


def _per_version(service: Service, model: Model, detector: str) -> list[dict[str, Any]]:
    found = latest_findings(service.store, model.environment, model.name, BEGINNING, MOST_FINDINGS, detector)
    return [finding_to_dict(f) for f in found if not f.subject.server]


def _latest(model: Model, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The drift and contrast findings of the newest window of the shortest length, worst first."""
    compared = [f for f in findings if f.subject.feature and not f.subject.without]
    return [finding_to_dict(f) for f in worst_first(_newest(compared), model.spec.importance)]


def _newest(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of the window that ended last; of several, the shortest."""
    if not findings:
        return []
    end, start = max((f.window.end, f.window.start) for f in findings)
    return [f for f in findings if (f.window.start, f.window.end) == (start, end)]


def pictures(service: Service, model: Model, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Shares per cell, before and now, of the features that were worst in any of the latest windows."""
    layout = model.layout
    if layout is None:
        return []
    found: dict[str, dict[str, Any]] = {}
    drifted = [f for f in findings if f.detector == "drift" and f.status is Status.MEASURED and f.subject.feature]
    plain = [f for f in drifted if not (f.subject.without or f.subject.segment)]
    sides: dict[tuple[str, str], Sides | None] = {}
    newest = worst_first(_newest(plain), model.spec.importance)
    for finding in sorted(newest, key=lambda f: f.p_value is None):  # one that is not tested only where no other is
        name, key = finding.subject.feature, (finding.baseline, finding.subject.version)
        if name in found or len(found) == MOST_PICTURES:
            continue
        if key not in sides:
            sides[key] = _sides(service, model, finding)
        both = sides[key]
        if both is not None:
            span = layout.spans[name]
            found[name] = _picture(finding, layout.by_name[name], both[0][span], both[1][span])
    return list(found.values())


def _sides(service: Service, model: Model, finding: Finding) -> Sides | None:
    """The counts of what a finding's window was held against, and of the window; None where they are gone."""
    window, version = finding.window, finding.subject.version
    try:
        current = read_traffic(service.store, model, window.start, window.end).counts(version=version)
    except GoneError:  # the finding stays longer than what it was made of
        return None
    if finding.baseline == HISTORY:
        expected = read_expected(service.store, model, window, version)
        return None if expected is None else (expected.counts, current.astype(np.float64))
    reference = model.references.get(version)
    return None if reference is None else (reference.counts.astype(np.float64), current.astype(np.float64))


def _picture(
    finding: Finding, cells: FeatureCells, baseline: NDArray[np.float64], current: NDArray[np.float64]
) -> dict[str, Any]:
    """One feature: labels and shares of the cells that hold anything; ordered neighbours merged if there are many."""
    shares = [x / max(1.0, float(x.sum())) for x in (baseline, current)]
    used = np.flatnonzero(shares[0] + shares[1])
    ordered = used[used < cells.ordered]
    merged = [g for g in np.array_split(ordered, min(MOST_BARS, max(1, len(ordered)))) if len(g)]
    groups = [*merged, *used[used >= cells.ordered].reshape(-1, 1)]
    return {
        **finding_to_dict(finding),
        "labels": [
            cells.labels[g[0]] if len(g) == 1 else f"{cells.labels[g[0]]} … {cells.labels[g[-1]]}" for g in groups
        ],
        "baseline_shares": [float(shares[0][g].sum()) for g in groups],
        "shares": [float(shares[1][g].sum()) for g in groups],
        "statistics": named_statistics(cells, baseline, current) if baseline.any() and current.any() else {},
    }
