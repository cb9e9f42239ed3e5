"""The share of health probes of a server that failed."""

from __future__ import annotations

from detectors.finding import Finding, Status, Subject, Window
from detectors.intervals import wilson


def health_finding(window: Window, subject: Subject, failed: int, probes: int, latency_p95_ms: float | None) -> Finding:
    """Detector ``health``: ``value`` is the share of probes that failed, with its 95 % Wilson interval.

    One probe is enough: a server with a single failed probe is measured, and its wide interval says how little that
    is. It does not tell a server that is down from a network that is. ``effects`` has ``latency_p95_ms`` where known.
    ``value`` and ``n`` are all that ``detectors.intervals.above`` needs for the p-value of a limit.
    """
    if probes == 0:
        return Finding(
            window, subject, "health", status=Status.NOT_ENOUGH_DATA, message="no probe of this server in the window"
        )
    low, high = wilson(failed, probes)
    effects = {} if latency_p95_ms is None else {"latency_p95_ms": latency_p95_ms}
    return Finding(window, subject, "health", value=failed / probes, low=low, high=high, n=probes, effects=effects)
