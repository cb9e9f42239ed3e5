"""The statements on incidents, the time line and actions, inside one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from alerts.action import Action, ActionState
from alerts.incidents import Incident, Seen
from alerts.ledger.evaluations import finish_evaluation, judged_at
from alerts.ledger.records import Claim, Message, TimelineEntry
from alerts.ledger.schema import EPOCH, actions, incidents, outbox, reports, timeline
from alerts.places import Cause

UNSETTLED = ("pending", "firing")


class Book:
    """The ledger, opened for one transaction: all that is written in it happens together, or not at all."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    # Incidents

    def incident(self, key: str) -> Incident | None:
        """One incident, if anything was ever held against its subject."""
        return next(self._incidents(incidents.c.key == key), None)

    def unsettled(self, environment: str, model: str) -> list[Incident]:
        """The pending and firing incidents of a model, oldest first."""
        here = (incidents.c.environment == environment, incidents.c.model == model)
        return list(self._incidents(*here, incidents.c.state.in_(UNSETTLED)))

    def firing(self) -> list[Incident]:
        """The firing incidents of all models, oldest first."""
        return list(self._incidents(incidents.c.state == "firing"))

    def keep(self, incident: Incident, *, new: bool) -> None:
        """Store an incident."""
        values = {f.name: getattr(incident, f.name) for f in fields(Incident)}
        values |= {"causes": [c.to_dict() for c in incident.causes], "windows": [w.to_list() for w in incident.windows]}
        if new:
            self.connection.execute(insert(incidents).values(values))
        else:
            self.connection.execute(update(incidents).where(incidents.c.key == incident.key).values(values))

    def _incidents(self, *where: ColumnElement[bool]) -> Iterator[Incident]:
        query = select(incidents).where(*where).order_by(incidents.c.since, incidents.c.key)
        for row in self.connection.execute(query):
            values = row._asdict()
            values |= {name: tuple(values[name]) for name in ("features", "evidence")}
            values |= {"causes": tuple(map(Cause.from_dict, values["causes"]))}
            yield Incident(**values | {"windows": tuple(map(Seen.from_list, values["windows"]))})

    # The time line

    def log(self, at: datetime, event: str, environment: str, model: str, **data: Any) -> None:
        """Write down that something happened."""
        values = {"at": at, "event": event, "environment": environment, "model": model, "data": data}
        self.connection.execute(insert(timeline).values(values))

    def timeline(self, after: int, model: str | None, limit: int, *, newest_first: bool) -> list[TimelineEntry]:
        """Entries with an id above ``after``."""
        query = select(timeline).where(timeline.c.id > after).limit(limit)
        if model is not None:
            query = query.where(timeline.c.model == model)
        query = query.order_by(timeline.c.id.desc() if newest_first else timeline.c.id)
        return [TimelineEntry(**row._asdict()) for row in self.connection.execute(query)]

    # Actions

    def add_action(self, action: Action) -> None:
        """Store a new action. Raises IntegrityError when another is in flight for the model."""
        self.connection.execute(insert(actions).values(_action_values(action)))

    def action(self, action_id: str) -> Action | None:
        """One action."""
        return next(self._actions(actions.c.id == action_id), None)

    def actions(self, environment: str, model: str) -> list[Action]:
        """The actions of a model, oldest first."""
        return list(self._actions(actions.c.environment == environment, actions.c.model == model))

    def change_action(self, action: Action, state: ActionState, deadline: datetime | None = None) -> Action:
        """Move an action to another state."""
        moved = replace(action, state=state, deadline=deadline or action.deadline)
        self.connection.execute(update(actions).where(actions.c.id == action.id).values(_action_values(moved)))
        return moved

    def add_report(self, action_id: str, state: str, run: str) -> bool:
        """Remember a report on an action. False when it was there already."""
        key = {"action": action_id, "state": state, "run": run}
        there = select(func.count()).where(*(reports.c[name] == value for name, value in key.items()))
        if self.connection.scalar(there):
            return False
        self.connection.execute(insert(reports).values(key))
        return True

    def _actions(self, *where: ColumnElement[bool]) -> Iterator[Action]:
        names = [actions.c[f.name] for f in fields(Action)]
        oldest_first = (actions.c.requested_at, actions.c.id)
        for row in self.connection.execute(select(*names).where(*where).order_by(*oldest_first)):
            yield Action(**row._asdict())

    # Claims

    def finish(self, claim: Claim, now: datetime) -> bool:
        """Mark a window as judged, never to be judged again. False when the claim was lost meanwhile."""
        return finish_evaluation(self.connection, claim, now)

    def judged(self, claim: Claim) -> list[datetime]:
        """When the window of a claim was judged, the first time and again."""
        return judged_at(self.connection, claim)

    # Messages

    def enqueue(self, message: Message, now: datetime) -> None:
        """Store a message that is to be sent from now on."""
        values = {"state": "pending", "next_at": now, "lease_until": EPOCH, "error": "", "answer": ""}
        self.connection.execute(insert(outbox).values(asdict(message) | values))

    def withdraw(self, action_id: str) -> None:
        """Send no more requests for an action."""
        pending = (outbox.c.action == action_id, outbox.c.state == "pending")
        self.connection.execute(update(outbox).where(*pending).values(state="withdrawn"))


def _action_values(action: Action) -> Mapping[str, Any]:
    holds = f"{action.environment}\x1f{action.model}" if action.in_flight else None
    return asdict(action) | {"in_flight_for": holds}
