"""Drift of features between two count vectors, judged as independent rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detectors.calibration import Mode, Usual
from detectors.effects import jensen_shannon, location_auc, psi, wasserstein_sd
from detectors.finding import Contribution, Finding, Status, Subject, Window
from detectors.layout import Counts, FeatureCells, Layout
from detectors.multiplicity import cauchy_p
from detectors.scores import EXPLANATION_ORDER, Case, Score, scores_of

RANK_TOLERANCE = 0.02
"""Location and scale: difference of mean pooled ranks (AUC - 1/2) that is too small to matter."""
SHARE_TOLERANCE = 0.01
"""Missing, unusable, unseen, levels: difference of shares (1 percentage point) that is too small to matter."""
DISTANCE_TOLERANCE = 0.05
"""Shape: Jensen-Shannon distance above chance that is too small to matter."""
TOLERANCES: Mapping[str, float] = {
    "missing": SHARE_TOLERANCE,
    "unusable": SHARE_TOLERANCE,
    "unseen": SHARE_TOLERANCE,
    "level": SHARE_TOLERANCE,
    "scale": RANK_TOLERANCE,
    "location": RANK_TOLERANCE,
    "shape": DISTANCE_TOLERANCE,
}
SIGNIFICANT = 0.05
"""Components at or below it, after correction for the feature's scores, may name the change."""
SHOWN_CELLS = 5
ONE_SIDED_95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one feature differs between the baseline's and the current rows; the fields are those of Finding."""

    status: Status
    n: int
    n_baseline: int
    value: float | None = None
    p_value: float | None = None
    component: str = ""
    severity: float = 0.0
    effects: Mapping[str, float] = field(default_factory=dict)
    contributions: tuple[Contribution, ...] = ()
    message: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)
    exposure: float = 0.0
    mode: str = ""


def compare_feature(
    cells: FeatureCells,
    baseline: Counts | NDArray[np.float64],
    current: Counts | NDArray[np.float64],
    minimum_rows: int = 200,
) -> Comparison:
    """Compares one feature's counts.

    ``p_value`` is that of "both sides are random rows of one population": ``combined_p`` of the feature's scores. It
    holds for independent rows: in a window with a season or autocorrelation it is too small. It says nothing about
    joint changes of several features. ``value`` is the Jensen-Shannon distance to base 2 over all cells.

    ``effects``: ``psi``, ``jensen_shannon``, ``missing_difference`` (share, current minus baseline), for ordered
    features ``location_auc`` (chance that a current row exceeds a baseline row, minus 1/2) and ``wasserstein_sd``
    where it is defined.

    ``severity`` is the largest lower 95 % bound of a component's effect over its tolerance, ``component`` the first
    in EXPLANATION_ORDER among the significant components that reach half of that severity. Without a significant
    one it is the component with the least p; for an identical constant it is empty, with p = 1.

    >>> from detectors.layout import Kind
    >>> flag = FeatureCells("flag", Kind.CATEGORICAL, levels=("no", "yes"))
    >>> found = compare_feature(flag, np.array([900, 100, 0, 0, 0, 0]), np.array([800, 200, 0, 0, 0, 0]))
    >>> found.component, found.contributions[0]
    ('level', Contribution(cell='yes', baseline_share=0.1, share=0.2))
    """
    return compare_features([Case(cells, baseline.astype(np.float64), current.astype(np.float64))], minimum_rows)[0]


def compare_features(
    cases: Sequence[Case],
    minimum_rows: int = 200,
    usual: Usual | None = None,
    exposures: Mapping[str, float] | None = None,
) -> list[Comparison]:
    """``compare_feature`` of each case, many times as fast as one after the other.

    usual
        What the scores were in earlier windows: then p-values and severities are as these make them.
    exposures
        Of features whose baseline is of another time; see ``detectors.seasons.Expectation``.
    """
    judged = [case for case in cases if min(_rows(case)) >= max(minimum_rows, 1)]
    exposed = [(exposures or {}).get(case.cells.name, _exposure(case)) for case in judged]
    raw = scores_of(judged)
    scores, known = raw, [frozenset[str]()] * len(raw)
    if usual is not None:
        scores, known = usual.calibrated([case.cells.name for case in judged], exposed, raw)
    found = iter(map(_compared, judged, raw, scores, exposed, known))
    return [
        next(found) if min(_rows(case)) >= max(minimum_rows, 1) else _not_judged(case, minimum_rows) for case in cases
    ]


def _exposure(case: Case) -> float:
    n, m = float(case.current.sum()), float(case.baseline.sum())
    return n * m / (n + m)


def _compared(
    case: Case, raw: Sequence[Score], scores: Sequence[Score], exposure: float, known: frozenset[str]
) -> Comparison:
    component, severity = _explain(scores)
    effects = _effects(*case)
    return Comparison(
        Status.MEASURED,
        *_rows(case),
        value=effects["jensen_shannon"],
        p_value=combined_p(scores),
        component=component,
        severity=severity,
        effects=effects,
        contributions=_contributions(*case),
        scores={score.component: score.z for score in raw},
        calibrated={score.component: score.z for score in scores if score.component in known},
        exposure=exposure,
        mode=Mode.HISTORY if known else Mode.INDEPENDENT_ROWS,
    )


def combined_p(scores: Sequence[Score]) -> float:
    """The p-value of a feature from those of its scores; 1 for one without scores, which is a constant."""
    return cauchy_p([s.p_value for s in scores]) if scores else 1.0


def _not_judged(case: Case, minimum_rows: int) -> Comparison:
    n, m = _rows(case)
    message = f"{n} rows against {m} in the baseline; {minimum_rows} are needed on each side"
    comparison = Comparison(Status.NOT_ENOUGH_DATA, n, m, message=message)
    if not (case.current.any() and case.baseline.any()):
        return comparison
    effects = _effects(*case)
    shown = _contributions(*case)
    return replace(comparison, value=effects["jensen_shannon"], effects=effects, contributions=shown)


def _rows(case: Case) -> tuple[int, int]:
    return round(float(case.current.sum())), round(float(case.baseline.sum()))


def drift_findings(
    window: Window,
    subject: Subject,
    detector: str,
    baseline_name: str,
    layout: Layout,
    baseline: Counts | NDArray[np.float64],
    current: Counts | NDArray[np.float64],
    minimum_rows: int,
    features: Collection[str] | None = None,
    usual: Usual | None = None,
    exposures: Mapping[str, float] | None = None,
) -> list[Finding]:
    """One finding for each feature of the layout, or for those named: ``compare_feature`` on its cells.

    The p-values are not corrected for the number of features; see ``detectors.multiplicity.holm``.

    detector, baseline_name
        What the findings call themselves and their other side, such as ``drift`` and ``reference:training``.
    usual, exposures
        As for ``compare_features``.
    """
    judged = [cells for cells in layout.features if features is None or cells.name in features]
    current, baseline = current.astype(np.float64), baseline.astype(np.float64)
    spans = [layout.spans[cells.name] for cells in judged]
    cases = [Case(cells, baseline[span], current[span]) for cells, span in zip(judged, spans, strict=True)]
    return [
        Finding(
            window,
            replace(subject, feature=case.cells.name),
            detector,
            baseline_name,
            found.status,
            found.value,
            p_value=found.p_value,
            n=found.n,
            n_baseline=found.n_baseline,
            component=found.component,
            severity=found.severity,
            effects=found.effects,
            contributions=found.contributions,
            message=found.message,
            scores=found.scores,
            calibrated=found.calibrated,
            exposure=found.exposure,
            mode=found.mode,
        )
        for case, found in zip(cases, compare_features(cases, minimum_rows, usual, exposures), strict=True)
    ]


def _effects(cells: FeatureCells, r: NDArray[np.float64], c: NDArray[np.float64]) -> dict[str, float]:
    missing = cells.state("missing")
    effects = {
        "psi": psi(r, c),
        "jensen_shannon": jensen_shannon(r, c),
        "missing_difference": float(c[missing] / c.sum() - r[missing] / r.sum()),
    }
    ordered_c, ordered_r = c[: cells.ordered], r[: cells.ordered]
    if ordered_c.any() and ordered_r.any():
        effects["location_auc"] = location_auc(ordered_r, ordered_c)
        distance = wasserstein_sd(cells, r, c)
        if distance is not None:
            effects["wasserstein_sd"] = distance
    return effects


def _contributions(cells: FeatureCells, r: NDArray[np.float64], c: NDArray[np.float64]) -> tuple[Contribution, ...]:
    n, m = float(c.sum()), float(r.sum())
    pooled = c + r
    differing = (c / n - r / m) ** 2 / np.where(pooled > 0, pooled, 1.0)
    largest = np.argsort(-differing, kind="stable")[:SHOWN_CELLS]
    return tuple(
        Contribution(cells.labels[i], float(r[i] / m), float(c[i] / n)) for i in largest.tolist() if differing[i] > 0
    )


def _explain(scores: Sequence[Score]) -> tuple[str, float]:
    """The component that names the change, and the severity."""
    if not scores:
        return "", 0.0
    severities = {s.component: _lower_bound(s) / TOLERANCES[s.component] for s in scores}
    severity = max(severities.values())
    naming = {
        s.component
        for s in scores
        if len(scores) * s.p_value <= SIGNIFICANT and severities[s.component] >= severity / 2
    }
    first = next((name for name in EXPLANATION_ORDER if name in naming), None)
    return first or min(scores, key=lambda s: s.p_value).component, severity


def _lower_bound(score: Score) -> float:
    """The one-sided 95 % lower bound of the effect's size, as if its error were the normal one that gives its p."""
    z = score.z if score.component == "shape" else abs(score.z)
    return abs(score.effect) * max(0.0, 1 - ONE_SIDED_95 / z) if z > 0 else 0.0
