"""Who judges which window, so that each is judged once however many judges there are."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, FromClause, delete, exists, func, select, update

from alerts.ledger.database import insert_if_absent
from alerts.ledger.records import Claim
from alerts.ledger.schema import EPOCH, evaluations

LATE_CLAIMS = " at "
"""Stands in the kind of claims to judge a window again, before what tells them apart."""


def claim_evaluation(
    connection: Connection, claim: Claim, now: datetime, lease: timedelta, first: datetime = EPOCH
) -> bool:
    """Whether the claim is granted until the lease ends.

    Never for a finished window, nor while another's lease lasts, nor before the earlier windows that were claimed are
    finished: the state of an incident depends on the order. ``first`` is the start of the first window that is still
    to be judged; unfinished ones before it, of a store that was lost, are nobody's any more.
    """
    key = {"environment": claim.environment, "model": claim.model, "kind": claim.kind, "start": claim.start}
    insert_if_absent(connection, evaluations, key | {"end": claim.end, "owner": "", "lease_until": EPOCH})
    earlier = evaluations.alias("earlier")
    must_wait = exists().where(
        *_kind(earlier, claim.environment, claim.model, claim.kind),
        earlier.c.start < claim.start,
        earlier.c.start >= first,
        earlier.c.finished_at.is_(None),
    )
    free = (evaluations.c.finished_at.is_(None), evaluations.c.lease_until <= now, ~must_wait)
    granted = update(evaluations).where(*_window(claim), *free).values(owner=claim.owner, lease_until=now + lease)
    return connection.execute(granted.returning(evaluations.c.start)).one_or_none() is not None


def finish_evaluation(connection: Connection, claim: Claim, now: datetime) -> bool:
    """Mark the window as judged. False when the claim was lost meanwhile, and nothing is written."""
    held = (evaluations.c.owner == claim.owner, evaluations.c.finished_at.is_(None))
    finished = update(evaluations).where(*_window(claim), *held).values(finished_at=now)
    return connection.execute(finished.returning(evaluations.c.start)).one_or_none() is not None


def release_evaluation(connection: Connection, claim: Claim) -> None:
    """The owner could not judge the window and lets go of it; whoever comes next may."""
    held = evaluations.c.owner == claim.owner
    connection.execute(update(evaluations).where(*_window(claim), held).values(lease_until=EPOCH))


def is_finished(connection: Connection, claim: Claim) -> bool:
    """Whether the window is judged, by whomever."""
    done = exists().where(*_window(claim), evaluations.c.finished_at.is_not(None))
    return bool(connection.scalar(select(done)))


def judged_at(connection: Connection, claim: Claim) -> list[datetime]:
    """When the window was judged, oldest first: the first time, and again since. The claim is one of either."""
    kind = claim.kind.partition(LATE_CLAIMS)[0]
    here = (evaluations.c[name] == getattr(claim, name) for name in ("environment", "model", "start"))
    same = (evaluations.c.kind == kind) | evaluations.c.kind.startswith(kind + LATE_CLAIMS, autoescape=True)
    times = select(evaluations.c.finished_at).where(*here, same, evaluations.c.finished_at.is_not(None))
    return list(connection.scalars(times.order_by(evaluations.c.finished_at)))


def renew_evaluation(connection: Connection, claim: Claim, now: datetime, lease: timedelta) -> bool:
    """Hold on to a claim until another lease ends. False when it was lost meanwhile."""
    held = (evaluations.c.owner == claim.owner, evaluations.c.finished_at.is_(None), evaluations.c.lease_until > EPOCH)
    renewed = update(evaluations).where(*_window(claim), *held).values(lease_until=now + lease)
    return connection.execute(renewed.returning(evaluations.c.start)).one_or_none() is not None


def remove_late_claims(connection: Connection, until: datetime) -> int:
    """Remove the claims to judge windows again that ended before a time, when nobody watches them any more."""
    gone = delete(evaluations).where(evaluations.c.kind.contains(LATE_CLAIMS), evaluations.c.end < until)
    return connection.execute(gone).rowcount


def last_finished(connection: Connection, environment: str, model: str, kind: str) -> datetime | None:
    """The end of the latest window that is judged."""
    done = (*_kind(evaluations, environment, model, kind), evaluations.c.finished_at.is_not(None))
    end: datetime | None = connection.scalar(select(func.max(evaluations.c.end)).where(*done))
    return end


def _window(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (*_kind(evaluations, claim.environment, claim.model, claim.kind), evaluations.c.start == claim.start)


def _kind(table: FromClause, environment: str, model: str, kind: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.environment == environment, table.c.model == model, table.c.kind == kind
