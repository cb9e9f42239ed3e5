"""Reports on actions, from whoever carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alerts.action import REPORTS
from alerts.ledger.records import BadCallbackError

TEXTS = ("run_url", "deployed_version", "message")
LONGEST_TEXT = 1000


def read_report(event: Any) -> dict[str, str]:
    """The state, and what else is known in a report. Raises BadCallbackError, which says what would be right.

    >>> read_report({"state": "started", "run_url": "https://ci.example/7"})
    {'state': 'started', 'run_url': 'https://ci.example/7'}
    """
    if not isinstance(event, Mapping):
        raise BadCallbackError('the report is not an object; send {"state": "started"}')
    state = event.get("state")
    if not isinstance(state, str) or state not in REPORTS:
        shown = repr(state[:60]) if isinstance(state, str) else f"a {type(state).__name__}"
        raise BadCallbackError(f"state is {shown}; use {', '.join(REPORTS)}")
    report = {"state": state}
    for name in TEXTS:
        text = event.get(name, "")
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            raise BadCallbackError(f"{name} must be a text of at most {LONGEST_TEXT} characters")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise BadCallbackError(f"{name} holds half of a surrogate pair, which is not text; send whole characters")
        if text:
            report[name] = text
    return report
