"""What serves where: versions that nobody released there, and servers whose clocks differ."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from detectors.finding import Finding, Status, Subject, Window

FACT = 1.0
"""The severity of what has no size, where it counts."""
AHEAD_TOLERANCE = 5.0
"""Seconds. Nothing arrives before it is sent, so that what seems to is the clock's doing."""
BEHIND_TOLERANCE = 60.0
"""Seconds. It may also be that the server ships late."""
LEAST_BATCHES = 5
LEAST_SERVERS = 3
"""Of fewer it cannot be told who differs."""


def place_finding(window: Window, subject: Subject, rows: int, problem: str = "") -> Finding:
    """Detector ``fleet`` of a version on a server: it serves there although nobody released it, or it is retired.

    ``value`` and ``n`` are its rows in the window. It does not tell whether the version is right, nor that the release
    was wrong: somebody may have forgotten to announce it.

    problem
        ``unreleased`` or ``retired``; empty where all is as announced.
    """
    told = {
        "": "",
        "unreleased": "and nobody released it there",
        "retired": "although it is retired",
    }
    message = f"version {subject.version} serves on {subject.server}, {told[problem]}" if problem else ""
    severity = FACT if problem else 0.0
    return Finding(window, subject, "fleet", value=rows, n=rows, component=problem, severity=severity, message=message)


def skews(delays: Mapping[str, float]) -> dict[str, float]:
    """How far each server's clock seems to be ahead of its fleet's, in seconds: the median delay less its own.

    delays
        Per server, seconds from an event to its arrival.

    >>> skews({"a": 0.2, "b": 0.3, "c": -29.7})
    {'a': 0.0, 'b': -0.1, 'c': 29.9}
    """
    median = statistics.median(delays.values()) if delays else 0.0
    return {server: round(median - delay, 3) + 0.0 for server, delay in delays.items()}


def clock_finding(window: Window, server: str, delay: float, skew: float, batches: int, servers: int) -> Finding:
    """Detector ``fleet``, component ``clock``: ``value`` is how far a server's clock is ahead, in seconds.

    A clock behind the fleet's looks like a server that ships late: only all of them together would tell, if they had
    something in common to be held against. Where all clocks are wrong in the same way, none is found. The severity is
    the difference over 5 s ahead and 60 s behind.

    delay
        Seconds from an event to its arrival, as the quickest have it. Below zero the clock is ahead for certain.
    batches, servers
        Batches behind the delay, and servers with one.
    """
    subject = Subject(server=server)
    few = f"{batches} batches of {servers} servers; {LEAST_BATCHES} of {LEAST_SERVERS} are needed"
    ahead = max(-delay, skew if servers >= LEAST_SERVERS else 0.0)
    if batches < LEAST_BATCHES or (servers < LEAST_SERVERS and ahead <= AHEAD_TOLERANCE):
        return Finding(window, subject, "fleet", "fleet", Status.NOT_ENOUGH_DATA, n=batches, message=few)
    behind = -skew if servers >= LEAST_SERVERS else 0.0
    told = ""
    if ahead > AHEAD_TOLERANCE:
        told = f"its clock is {ahead:.0f} s ahead"
    elif behind > BEHIND_TOLERANCE:
        told = f"its events arrive {behind:.0f} s later than others': its clock is behind, or it ships late"
    return Finding(
        window,
        subject,
        "fleet",
        "fleet",
        value=skew,
        n=batches,
        component="clock" if told else "",
        severity=max(ahead / AHEAD_TOLERANCE, behind / BEHIND_TOLERANCE, 0.0),
        effects={"delay_seconds": delay},
        message=told,
    )
