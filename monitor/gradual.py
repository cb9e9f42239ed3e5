"""Slow drift of a model's features: what its daily windows add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.calibration import Mode
from detectors.drift import drift_findings
from detectors.finding import Finding, Subject, Window
from detectors.gradual import COMPONENTS, evidence, mean_evidence, persistence
from monitor.registry import Model
from monitor.store import Store
from monitor.usual import HISTORY, Expected, UsualScores, read_expected
from monitor.windows import is_side_by_side, read_traffic

DAY = timedelta(days=1)
DETECTOR = "gradual_drift"
WORTH_A_LOOK = 0.05
"""At or below this p-value it is measured how much changed since the first day of the change."""


def gradual_findings(
    store: Store, model: Model, window: Window, findings: Sequence[Finding], usual: UsualScores
) -> Iterator[Finding]:
    """Detector ``gradual_drift``: of each feature whose drift a daily window judged by its history.

    ``p_value`` is what the days so far say against "nothing changed", whenever one looks; ``value``, ``severity`` and
    the rest compare the days since the change with the same hours of the weeks before it. Below the evidence that is
    worth that look, severity is 0.
    """
    judged = [
        f
        for f in findings
        if f.detector == "drift" and f.baseline == HISTORY and f.mode == Mode.HISTORY and f.subject == _whole(f)
    ]
    if window.end - window.start != DAY or not is_side_by_side(window) or not judged:
        return
    earlier = usual.calibrated("drift", HISTORY, Subject()).filter(pl.col("score_name").is_in(COMPONENTS))
    pasts: dict[datetime, tuple[Expected, NDArray[Any]] | None] = {}

    def since(day: datetime) -> tuple[Expected, NDArray[Any]] | None:
        if day not in pasts:
            pasts[day] = _since(store, model, Window(model.environment, model.name, day, window.end))
        return pasts[day]

    of_feature = {str(name): rows for (name,), rows in earlier.partition_by("feature", as_dict=True).items()}
    for f in judged:
        today = {name: z for name, z in f.calibrated.items() if name in COMPONENTS}
        if today:
            yield _measured(model, f, today, of_feature.get(f.subject.feature), since)


def _whole(finding: Finding) -> Subject:
    return Subject(feature=finding.subject.feature)


def _measured(
    model: Model,
    today: Finding,
    scores: dict[str, float],
    earlier: pl.DataFrame | None,
    since_day: Callable[[datetime], tuple[Expected, NDArray[Any]] | None],
) -> Finding:
    names = sorted(scores)
    days: dict[datetime, dict[str, float]] = {}
    if earlier is not None:
        for start, name, z in earlier.select("start", "score_name", "calibrated").iter_rows():
            days.setdefault(start, {})[name] = z
    days[today.window.start] = scores
    starts = sorted(days)
    z = np.array([[days[start].get(name, math.nan) for name in names] for start in starts])
    log_e, since, most = mean_evidence(evidence(z / persistence(z)))
    p_value = math.exp(-max(log_e, 0.0))
    about = replace(today, detector=DETECTOR, p_value=p_value, component=names[most], scores={}, calibrated={})
    if p_value > WORTH_A_LOOK:
        return replace(about, severity=0.0, contributions=())
    sides = since_day(starts[since])
    if sides is None or model.layout is None:
        return about
    expected, current = sides
    named = (today.window, Subject(), DETECTOR, HISTORY, model.layout, expected.counts, current)
    compared = drift_findings(*named, model.spec.minimum_rows, [today.subject.feature])[0]
    message = f"since {starts[since]:%Y-%m-%d}"
    return replace(compared, p_value=p_value, mode=Mode.HISTORY, message=message, scores={}, calibrated={})


def _since(store: Store, model: Model, window: Window) -> tuple[Expected, NDArray[Any]] | None:
    """What the days since a change were expected to hold, and what they hold: for the size of it, not for the test."""
    expected = read_expected(store, model, window)
    return None if expected is None else (expected, read_traffic(store, model, window.start, window.end).counts())
