"""Findings as rows of the store, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import polars.selectors as cs

from detectors.finding import Contribution, Finding, Status, Subject, Window
from monitor.rows import floats, texts
from monitor.store import Store

PLACE = ("version", "server", "segment", "feature")
"""What a subject names by one text each."""
JUDGED = (
    *("detector", "baseline", "value", "low", "high", "p_value", "n", "n_baseline"),
    *("component", "severity", "message"),
)
"""The columns that are fields of a finding as they are, and that policies may look at."""


def save_findings(store: Store, findings: Sequence[Finding], now: datetime) -> None:
    """Keep findings; measuring the same again replaces what was there."""
    if not findings:
        return
    subjects = {name: [getattr(f.subject, name) for f in findings] for name in PLACE}
    plain = ("detector", "baseline", "id", "status", "component", "message", "mode")
    numbers = {name: [_number(getattr(f, name)) for f in findings] for name in ("value", "low", "high", "p_value")}
    store.insert(
        "findings",
        pl.DataFrame(
            {
                "environment": [f.window.environment for f in findings],
                "model": [f.window.model for f in findings],
                "start": [f.window.start for f in findings],
                "end": [f.window.end for f in findings],
                **subjects,
                "without": texts([f.subject.without for f in findings]),
                **{name: [str(getattr(f, name)) for f in findings] for name in plain},
                **numbers,
                "n": [f.n for f in findings],
                "n_baseline": [f.n_baseline for f in findings],
                "severity": [float(f.severity) for f in findings],
                "effect_names": texts([list(f.effects) for f in findings]),
                "effect_values": floats([list(f.effects.values()) for f in findings]),
                "contribution_cells": texts([[c.cell for c in f.contributions] for f in findings]),
                "contribution_baselines": floats([[c.baseline_share for c in f.contributions] for f in findings]),
                "contribution_shares": floats([[c.share for c in f.contributions] for f in findings]),
                "score_names": texts([list(f.scores) for f in findings]),
                "score_values": floats([list(f.scores.values()) for f in findings]),
                "score_calibrated": floats([[f.calibrated.get(name, math.nan) for name in f.scores] for f in findings]),
                "exposure": [float(f.exposure) for f in findings],
                "measured": [now] * len(findings),
            },
            schema_overrides=dict.fromkeys(numbers, pl.Float64),
        ),
    )


def latest_findings(
    store: Store, environment: str, model: str, since: datetime, limit: int, detector: str = ""
) -> list[Finding]:
    """The findings of a model's windows that ended after a time, newest windows first; of one detector, or of all."""
    asked = {"environment": environment, "model": model, "detector": detector}
    rows = store.query("latest_findings", **asked, since=since, limit=limit)
    return [_finding(row) for row in rows.iter_rows(named=True)]


@dataclass(frozen=True, slots=True)
class JudgedFinding(Finding):
    """A finding as policies look at it: without its cells, and with the id that it was kept under.

    To work the ids out again takes longer than all the rest of a replay.
    """

    kept_id: str = ""

    @property
    def id(self) -> str:
        """The same for the same measurement, however often it is made."""
        return self.kept_id


def findings_between(
    store: Store, environment: str, model: str, length: timedelta, start: datetime, end: datetime
) -> dict[Window, list[Finding]]:
    """All findings of a model's windows of one length that lie in a span, by window, the earliest first."""
    length_ms = length // timedelta(milliseconds=1)
    asked = {"environment": environment, "model": model}
    rows = store.query("findings_between", **asked, length_ms=length_ms, start=start, end=end)
    rows = rows.with_columns(cs.float().fill_nan(None))
    windows: dict[tuple[datetime, datetime], Window] = {}
    found: dict[Window, list[Finding]] = {}
    subjects = map(Subject, *(rows[name].to_list() for name in PLACE), map(tuple, rows["without"].to_list()))
    named = ("start", "end", "id", "status", "effect_names", "effect_values", *JUDGED)
    columns = (rows[name].to_list() for name in named)
    for subject, begin, until, id_, status, effects, sizes, *values in zip(subjects, *columns, strict=True):
        span = (begin, until)
        if span not in windows:
            windows[span] = Window(environment, model, *span)
            found[windows[span]] = here = []
        told = dict(zip(JUDGED, values, strict=True))
        sized = dict(zip(effects, sizes, strict=True))
        here.append(JudgedFinding(windows[span], subject, status=Status(status), effects=sized, kept_id=id_, **told))
    return found


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """A finding as JSON can hold it: empty parts of the subject are left out."""
    window = finding.window
    subject = {n: v for n in PLACE if (v := getattr(finding.subject, n))}
    left_out = {"without": list(finding.subject.without)} if finding.subject.without else {}
    return {
        "id": finding.id,
        "environment": window.environment,
        "model": window.model,
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "detector": finding.detector,
        **subject,
        **left_out,
        "baseline": finding.baseline,
        "status": str(finding.status),
        **{name: getattr(finding, name) for name in ("value", "low", "high", "p_value", "n", "n_baseline")},
        "component": finding.component,
        "severity": finding.severity,
        "effects": dict(finding.effects),
        "contributions": [
            {"cell": c.cell, "baseline_share": c.baseline_share, "share": c.share} for c in finding.contributions
        ],
        "message": finding.message,
        "mode": finding.mode,
    }


def _finding(row: dict[str, Any]) -> Finding:
    cells = zip(row["contribution_cells"], row["contribution_baselines"], row["contribution_shares"], strict=True)
    return Finding(
        window=Window(row["environment"], row["model"], row["start"], row["end"]),
        subject=Subject(**{name: row[name] for name in PLACE}, without=tuple(row["without"])),
        detector=row["detector"],
        baseline=row["baseline"],
        status=Status(row["status"]),
        **{name: None if math.isnan(row[name]) else row[name] for name in ("value", "low", "high", "p_value")},
        n=row["n"],
        n_baseline=row["n_baseline"],
        component=row["component"],
        severity=row["severity"],
        effects=dict(zip(row["effect_names"], row["effect_values"], strict=True)),
        contributions=tuple(Contribution(*c) for c in cells),
        message=row["message"],
        scores=dict(zip(row["score_names"], row["score_values"], strict=True)),
        calibrated={n: z for n, z in zip(row["score_names"], row["score_calibrated"], strict=True) if z == z},
        exposure=row["exposure"],
        mode=row["mode"],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
