"""The share of requests that failed."""

from __future__ import annotations

from detectors.finding import Finding, Status, Subject, Window
from detectors.intervals import wilson


def errors_finding(window: Window, subject: Subject, failed: float, total: float, minimum_rows: int) -> Finding:
    """Detector ``errors``: ``value`` is the share of events with status ``error``, with its 95 % Wilson interval.

    It does not say whether the share changed, nor why requests fail. Requests that never became an event are not in it.
    ``value`` and ``n`` are all that ``detectors.intervals.above`` needs for the p-value of a limit.

    failed, total
        Events with status ``error``, and all events; of the effective number where sampling weights are mixed.
    """
    if total < max(minimum_rows, 1):
        return Finding(
            window,
            subject,
            "errors",
            status=Status.NOT_ENOUGH_DATA,
            value=failed / total if total else None,
            n=round(total),
            message=f"{total:.0f} events; {minimum_rows} are needed",
        )
    low, high = wilson(failed, total)
    return Finding(window, subject, "errors", value=failed / total, low=low, high=high, n=round(total))
