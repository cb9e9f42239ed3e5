"""Where a change is: of all places in which a window was measured, the smallest that explains it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from detectors.finding import Finding, Status

MOST_SHARED = 0.5
"""Of a place's change, what the rest may have, too, at most, for the change to be there only."""
Where = tuple[str, ...]
"""A place as a subject leaves it out: ``("server=s3",)``; ``("version=2", "server=s3")`` is version 2 on server s3."""
Located = Mapping[tuple[str, str], Where]
"""By the version whose reference it is (empty: all versions) and feature: the place that explains the change."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A feature that changed.

    component
        What changed of it, such as ``missing``.
    where
        The smallest place that explains it, in words, such as ``server s3``. Empty: all that the verdict is about.
    severity
        The effect over its tolerance.
    since
        The start of the first of the drifted windows in a row in which it was among the causes.
    """

    feature: str
    component: str
    where: str
    severity: float
    since: datetime

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "feature": self.feature,
            "component": self.component,
            "where": self.where,
            "severity": self.severity,
            "since": self.since.isoformat(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cause:
        """Back from JSON."""
        return cls(**{**values, "since": datetime.fromisoformat(values["since"])})


def smallest_places(findings: Sequence[Finding], counts: Callable[[Finding], bool]) -> Located:
    """For each changed feature the smallest place without which the change is gone.

    A place explains a change when the rest of the window, against its own reference, shows none that counts, and,
    so that this is not for lack of rows, surely has less than MOST_SHARED of the place's change. Of several such places
    it is the one with the fewest rows. No place: the change is everywhere, or it is not known where.

    counts
        Whether a finding is significant and large enough to matter.
    """
    drift = [f for f in findings if f.detector == "drift" and not f.subject.server]
    rows = {(f.subject.version, f.subject.feature): f.n for f in drift if not (f.subject.segment or f.subject.without)}
    found: dict[tuple[str, str], tuple[int, Where]] = {}
    for f in drift:
        key = (f.subject.version, f.subject.feature)
        if f.subject.without and key in rows and _is_well(f, counts):
            size = rows[key] - f.n
            found[key] = min(found.get(key, (size, f.subject.without)), (size, f.subject.without))
    return {key: where for key, (_, where) in found.items()}


def gone_without(findings: Iterable[Finding], counts: Callable[[Finding], bool]) -> Located:
    """By version and feature: the servers without which a version is like the baseline version."""
    return {
        (f.subject.version, f.subject.feature): f.subject.without
        for f in findings
        if f.detector == "version_contrast" and f.subject.without and _tested(f) and not counts(f)
    }


def in_words(where: Where) -> str:
    """A place as people say it.

    >>> in_words(("server=s1", "server=s2")), in_words(("version=2", "server=s3")), in_words(("segment=plan=vip",))
    ('servers s1 and s2', 'version 2 on server s3', 'segment plan=vip')
    """
    names: dict[str, list[str]] = {}
    for part in where:
        kind, _, name = part.partition("=")
        names.setdefault(kind, []).append(name)
    return " on ".join(f"{kind}{'s' * (len(of_kind) > 1)} {_listed(of_kind)}" for kind, of_kind in names.items())


def _is_well(rest: Finding, counts: Callable[[Finding], bool]) -> bool:
    return _tested(rest) and not counts(rest) and rest.effects.get("shared_high", 1.0) < MOST_SHARED


def _tested(finding: Finding) -> bool:
    return finding.status is Status.MEASURED and finding.p_value is not None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
