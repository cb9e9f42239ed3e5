"""What events are made of: features that nobody declared, that vanished, or that are of another kind than they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from detectors.drift import SHARE_TOLERANCE
from detectors.finding import Contribution, Finding, Subject, Window
from detectors.layout import FeatureCells

OUTPUT_MARK = "@"
MOSTLY = 0.5
"""Only what most rows of the baseline had can vanish; what most rows have of the wrong kind is of another kind."""


def undeclared_finding(window: Window, subject: Subject, rows: int, n: int, *, new: bool) -> Finding:
    """Detector ``schema``, component ``undeclared``: ``value`` is the share of rows with a key that nobody declared.

    Its severity is that share over a tolerance of 1 %, and zero where the key is not new: that some keys are not
    declared may well be meant so.

    rows, n
        Rows that have the key, of how many.
    """
    share = rows / n
    name = f"{'new ' if new else ''}feature {subject.feature!r}"
    return Finding(
        window,
        subject,
        "schema",
        value=share,
        n=n,
        component="undeclared",
        severity=share / SHARE_TOLERANCE if new else 0.0,
        message=f"{name}, which nobody declared, is in {share:.0%} of the rows",
    )


def broken(cells: FeatureCells, baseline: NDArray[Any], counts: NDArray[Any]) -> str:
    """How a feature's counts tell that it is not what it was: ``vanished``, ``kind``, or empty.

    It vanished when no row has it, and most rows of the baseline had it. It is of another kind when most rows hold
    a value of the wrong kind, and hardly any row of the baseline did. A number in place of a text is its text, so a
    categorical feature changes its kind only when it becomes an object or an array.
    """
    n, m = counts.sum(), baseline.sum()
    if not n or not m or cells.name.startswith(OUTPUT_MARK):
        return ""
    missing, wrong = cells.state("missing"), cells.state("wrong_kind")
    if counts[missing] == n and baseline[missing] / m <= MOSTLY:
        return "vanished"
    if counts[wrong] / n > MOSTLY and baseline[wrong] / m <= SHARE_TOLERANCE:
        return "kind"
    return ""


def broken_finding(
    window: Window,
    subject: Subject,
    component: str,
    cells: FeatureCells,
    baseline_name: str,
    baseline: NDArray[Any],
    counts: NDArray[Any],
) -> Finding:
    """Detector ``schema``, component ``vanished`` or ``kind``, of the feature that the cells are of.

    ``value`` is the share of rows that lack it, or have it of the wrong kind; the severity is how much that is more
    than in the baseline, over a tolerance of 1 %. Rows that are not independent make it no less true.
    """
    state = "missing" if component == "vanished" else "wrong_kind"
    share, before = (float(side[cells.state(state)] / side.sum()) for side in (counts, baseline))
    was = f"{before:.0%} before" if before else "none before"
    told = (
        f"is missing in all rows, {was}"
        if component == "vanished"
        else f"is no {cells.kind} in {share:.0%} of the rows, {was}"
    )
    return Finding(
        window,
        replace(subject, feature=cells.name),
        "schema",
        baseline_name,
        value=share,
        n=round(float(counts.sum())),
        n_baseline=round(float(baseline.sum())),
        component=component,
        severity=(share - before) / SHARE_TOLERANCE,
        contributions=(Contribution(state, before, share),),
        message=f"feature {cells.name!r} {told}",
    )


def where(flags: Mapping[str, bool], *, together: bool) -> list[str]:
    """On which servers of a version something is so: '' for the version as a whole.

    flags
        Whether it is so on each server that has enough rows to tell.
    together
        Whether it is so of all its rows together; what counts where no server has enough.

    >>> where({"a": True, "b": True}, together=True), where({"a": True, "b": False}, together=True)
    ([''], ['a'])
    >>> where({}, together=True), where({"a": False}, together=True), where({"a": False}, together=False)
    ([''], [''], [])
    """
    some = [server for server, flag in flags.items() if flag]
    return some if 0 < len(some) < len(flags) else [""] if together else []
