"""What messages say, as bytes. Standard Webhooks: ``type``, ``timestamp``, ``data``, below 20 kB."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from alerts.action import Action
from alerts.incidents import Change, Incident
from alerts.ledger.records import rfc3339
from alerts.places import Cause

LONGEST_TEXT = 200
LONGEST_FEATURE = 100
MOST_FEATURES = 10


def new_message_id() -> str:
    """An id that no other message has."""
    return f"msg_{secrets.token_hex(14)}"


def alert_body(incident: Incident, change: Change, now: datetime) -> bytes:
    """``telltale.alert.firing`` or ``telltale.alert.resolved``."""
    subject = {"version": incident.version, "server": incident.server, "segment": incident.segment}
    data = {
        "id": incident.key,
        "policy": _cut(incident.policy),
        "watch": incident.watch,
        "model": _cut(incident.model),
        "environment": _cut(incident.environment),
        "subject": {name: _cut(value) for name, value in subject.items()},
        "baseline_version": _cut(incident.baseline_version),
        "features": [f[:LONGEST_FEATURE] for f in incident.features[:MOST_FEATURES]],
        "value": incident.value,
        "summary": _cut(_summary(incident, change)),
    }
    return _body(f"telltale.alert.{'firing' if change == 'found' else 'resolved'}", now, data)


def rollback_body(action: Action, summary: str, token: str, callback_base: str) -> bytes:
    """``telltale.rollback.requested``.

    ``callback`` says where reports on the action go, with the token as bearer. Without a base it is a path on the
    service's own address.
    """
    data = {
        "id": action.id,
        "kind": "rollback",
        "model": _cut(action.model),
        "environment": _cut(action.environment),
        "version_accused": _cut(action.version),
        "version_target": _cut(action.target),
        "dry_run": action.dry_run,
        "expires_at": rfc3339(action.expires_at),
        "summary": _cut(summary),
        "callback": {"url": f"{callback_base}/v1/actions/{action.id}/events", "token": token},
    }
    return _body("telltale.rollback.requested", action.requested_at, data)


def _summary(incident: Incident, change: Change) -> str:
    what = incident.watch.replace("_", " ")
    places = (("version", incident.version), ("server", incident.server), ("segment", incident.segment))
    where = "".join(f", {name} {value}" for name, value in places if value)
    if change == "cleared":
        return f"{what} of {incident.model}{where} is over" + (f": {incident.reason}" if incident.reason else "")
    own = {f"{name} {value}" for name, value in places}
    changed = [_told(cause, own) for cause in incident.causes] or incident.features
    found = incident.reason or ", ".join(changed)
    late = ", found in rows that came late" if incident.late else ""
    return f"{what} of {incident.model}{where}{late}" + (f": {found}" if found else "")


def _told(cause: Cause, own: Collection[str]) -> str:
    """A feature, what changed of it, and where, unless that is the place that the incident is about."""
    known = (cause.component, f"only {cause.where}" if cause.where and cause.where not in own else "")
    about = ", ".join(filter(None, known))
    return f"{cause.feature} ({about})" if about else cause.feature


def _body(kind: str, now: datetime, data: Mapping[str, Any]) -> bytes:
    message = {"type": kind, "timestamp": rfc3339(now), "data": data}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _cut(text: str) -> str:
    return text[:LONGEST_TEXT]
