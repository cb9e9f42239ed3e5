"""Who judges which window, so that each is judged once however many judges there are."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select, update

from alerts.ledger.database import insert_if_absent
from alerts.ledger.schema import EPOCH, evaluations


def claim_evaluation(
    connection: Connection,
    environment: str,
    model: str,
    kind: str,
    start: datetime,
    end: datetime,
    owner: str,
    now: datetime,
    lease: timedelta,
) -> bool:
    """Whether the owner may judge this window until the lease ends.

    Never for a finished window, nor while another's lease lasts, nor before the earlier windows that were claimed are
    finished: the state of an incident depends on the order.
    """
    key = {"environment": environment, "model": model, "kind": kind, "start": start}
    same_kind = _kind(environment, model, kind)
    earlier = select(func.count()).where(*same_kind, evaluations.c.start < start, evaluations.c.finished_at.is_(None))
    if connection.scalar(earlier):
        return False
    values = key | {"end": end, "owner": "", "lease_until": EPOCH}
    insert_if_absent(connection, evaluations, values)
    free = (evaluations.c.start == start, evaluations.c.finished_at.is_(None), evaluations.c.lease_until <= now)
    claim = update(evaluations).where(*same_kind, *free).values(owner=owner, lease_until=now + lease)
    return connection.execute(claim.returning(evaluations.c.start)).one_or_none() is not None


def finish_evaluation(
    connection: Connection, environment: str, model: str, kind: str, start: datetime, now: datetime
) -> None:
    """The window is judged."""
    this = (*_kind(environment, model, kind), evaluations.c.start == start)
    connection.execute(update(evaluations).where(*this).values(finished_at=now))


def release_evaluation(
    connection: Connection, environment: str, model: str, kind: str, start: datetime, owner: str
) -> None:
    """The owner could not judge the window and lets go of it; whoever comes next may."""
    this = (*_kind(environment, model, kind), evaluations.c.start == start, evaluations.c.owner == owner)
    connection.execute(update(evaluations).where(*this).values(lease_until=EPOCH))


def last_finished(connection: Connection, environment: str, model: str, kind: str) -> datetime | None:
    """The end of the latest window that is judged."""
    done = (*_kind(environment, model, kind), evaluations.c.finished_at.is_not(None))
    end: datetime | None = connection.scalar(select(func.max(evaluations.c.end)).where(*done))
    return end


def _kind(environment: str, model: str, kind: str) -> tuple[ColumnElement[bool], ...]:
    table = evaluations.c
    return table.environment == environment, table.model == model, table.kind == kind
