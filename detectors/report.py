"""What a comparison of two tables found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from detectors.finding import Finding, Status, worst_first

if TYPE_CHECKING:
    import pandas as pd

ONLY_IN_REFERENCE = "only in the reference"
ONLY_IN_CURRENT = "only in the current rows"
SCHEMA = "schema"
"""The component of a column that is in only one table, or holds another kind of value in each."""


@dataclass(frozen=True, repr=False)
class Report:
    """The findings of a comparison, and which of them count as drifted.

    findings
        One for each column: the drifted ones first, each group worst first.
    adjusted
        Holm's adjusted p-value by column. Columns that were not tested have none.
    false_alarms
        A column whose adjusted p-value is at most this is drifted.
    rows_reference, rows_current
        Rows of each table.
    """

    findings: tuple[Finding, ...]
    adjusted: Mapping[str, float]
    false_alarms: float
    rows_reference: int
    rows_current: int

    @staticmethod
    def of(
        findings: Iterable[Finding],
        adjusted: Mapping[str, float],
        false_alarms: float,
        rows_reference: int,
        rows_current: int,
    ) -> Report:
        """The report with its findings in order."""
        report = Report(tuple(worst_first(findings)), adjusted, false_alarms, rows_reference, rows_current)
        return replace(report, findings=tuple(sorted(report.findings, key=lambda f: not report.is_drifted(f))))

    def is_drifted(self, finding: Finding) -> bool:
        """Whether this column changed: by its adjusted p-value, or as a whole."""
        return finding.component == SCHEMA or self.adjusted.get(finding.subject.feature, 1.0) <= self.false_alarms

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that changed, worst first."""
        return tuple(f.subject.feature for f in self.findings if self.is_drifted(f))

    @property
    def missing_columns(self) -> tuple[str, ...]:
        """Columns that only the reference has."""
        return tuple(f.subject.feature for f in self.findings if f.message == ONLY_IN_REFERENCE)

    @property
    def new_columns(self) -> tuple[str, ...]:
        """Columns that only the current rows have."""
        return tuple(f.subject.feature for f in self.findings if f.message == ONLY_IN_CURRENT)

    @property
    def judged(self) -> bool:
        """Whether any column could be judged. If not, an empty ``drifted`` means nothing."""
        return any(f.status is Status.MEASURED for f in self.findings)

    @property
    def reason(self) -> str:
        """Why nothing could be judged; empty where something was."""
        if self.judged:
            return ""
        return self.findings[0].message if self.findings else "the tables have no columns"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types, with the columns in the same order as the findings."""
        return {
            "judged": self.judged,
            "reason": self.reason,
            "drifted": list(self.drifted),
            "false_alarms": self.false_alarms,
            "rows_reference": self.rows_reference,
            "rows_current": self.rows_current,
            "columns": [
                self._row(f) | {"effects": dict(f.effects), "contributions": [asdict(c) for c in f.contributions]}
                for f in self.findings
            ],
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row for each column of the tables; an effect size that a column does not have is NaN."""
        import pandas as pd

        return pd.DataFrame([self._row(f) | dict(f.effects) for f in self.findings])

    def _row(self, finding: Finding) -> dict[str, Any]:
        return {
            "column": finding.subject.feature,
            "status": finding.status.value,
            "drifted": self.is_drifted(finding),
            "component": finding.component,
            "severity": finding.severity,
            "p_value": finding.p_value,
            "adjusted_p_value": self.adjusted.get(finding.subject.feature),
            "rows_reference": finding.n_baseline,
            "rows_current": finding.n,
            "message": finding.message,
        }

    def __repr__(self) -> str:
        sizes = f"{self.rows_reference:,} reference rows, {self.rows_current:,} current rows"
        if not self.judged:
            return f"Not judged: {self.reason} ({sizes})"
        changed = [f for f in self.findings if self.is_drifted(f)]
        chance = f"chance of any false alarm {self.false_alarms:.3g}"
        lines = [f"{len(changed)} of {len(self.findings)} columns drifted ({sizes}; {chance})"]
        if changed:
            lines += _aligned([("column", "what changed", "most in", "distance", "p"), *map(self._cells, changed)])
        lines += [
            f"not judged: {f.subject.feature}: {f.message}" for f in self.findings if f.status is not Status.MEASURED
        ]
        return "\n".join(lines)

    def _cells(self, finding: Finding) -> tuple[str, ...]:
        name = finding.subject.feature
        if finding.value is None:
            return name, finding.component, finding.message, "", ""
        return name, finding.component, _largest(finding), f"{finding.value:.3f}", f"{self.adjusted[name]:.2g}"


def _largest(finding: Finding) -> str:
    """The cell that differs most; a change of missing values is shown by its own cell."""
    own = [c for c in finding.contributions if c.cell == finding.component]
    shown = (*own, *finding.contributions)[0]
    return f"{shown.cell}: {shown.baseline_share:.1%} to {shown.share:.1%}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [f"  {line}" for line in padded]
