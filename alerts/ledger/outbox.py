"""Which message is next, and what came of it. Claims are one conditional UPDATE, so no two workers get one message.

Messages of one kind to one endpoint about one model go in order: a later one waits until the earlier one is no longer
pending, so that "resolved" cannot overtake "firing". Commands go before alerts, and do not wait for them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, select, update

from alerts.ledger.database import insert_if_absent
from alerts.ledger.records import Message
from alerts.ledger.schema import EPOCH, disabled_endpoints, outbox
from alerts.transport import Answer

MESSAGE_COLUMNS = [outbox.c[f.name] for f in fields(Message)]
LANE = ("endpoint", "environment", "model", "kind")


def claim_message(
    connection: Connection, endpoints: Collection[str], lease: str, until: datetime, now: datetime
) -> Message | None:
    """The next message that is due at one of the endpoints, ours until the lease ends. Counts as an attempt."""
    candidate, earlier = outbox.alias("candidate"), outbox.alias("earlier")
    overtakes = exists().where(
        *(earlier.c[name] == candidate.c[name] for name in LANE),
        earlier.c.state == "pending",
        earlier.c.sequence < candidate.c.sequence,
    )
    following = (
        select(candidate.c.sequence)
        .where(
            candidate.c.state == "pending",
            candidate.c.next_at <= now,
            candidate.c.lease_until <= now,
            candidate.c.endpoint.in_(endpoints),
            ~overtakes,
        )
        .order_by(candidate.c.kind.desc(), candidate.c.sequence)
        .limit(1)
        .scalar_subquery()
    )
    # Where writers do not wait for each other, one may have come between: so the conditions are put once more.
    claim = (
        update(outbox)
        .where(outbox.c.sequence == following, outbox.c.state == "pending", outbox.c.lease_until <= now)
        .values(lease=lease, lease_until=until, attempts=outbox.c.attempts + 1)
        .returning(*MESSAGE_COLUMNS)
    )
    row = connection.execute(claim).one_or_none()
    return None if row is None else Message(**row._asdict())


def settle_message(
    connection: Connection, message: Message, answer: Answer, next_at: datetime | None, now: datetime
) -> bool:
    """Write down what came of an attempt: delivered, to be tried again, or (no next time) failed for good.

    False when the claim was lost meanwhile, and nothing is written.
    """
    outcome: dict[str, Any] = {"status": answer.status, "error": answer.error, "answer": answer.body}
    if answer.received:
        outcome |= {"state": "delivered", "delivered_at": now}
    elif next_at is None:
        outcome |= {"state": "failed"}
    else:
        outcome |= {"next_at": next_at, "lease_until": EPOCH}
    held = (outbox.c.id == message.id, outbox.c.lease == message.lease, outbox.c.state == "pending")
    settled = update(outbox).where(*held).values(outcome).returning(outbox.c.id)
    return connection.execute(settled).one_or_none() is not None


def expire_messages(connection: Connection, now: datetime) -> list[Message]:
    """Give up the messages that are too late and not being sent at this moment."""
    late = (outbox.c.state == "pending", outbox.c.expires_at <= now, outbox.c.lease_until <= now)
    expired = update(outbox).where(*late).values(state="expired").returning(*MESSAGE_COLUMNS)
    return [Message(**row._asdict()) for row in connection.execute(expired)]


def disable_endpoint(connection: Connection, endpoint: str, address: str, now: datetime) -> None:
    """Send nothing more to an endpoint while it has this address."""
    insert_if_absent(connection, disabled_endpoints, {"endpoint": endpoint, "address": address, "disabled_at": now})


def disabled(connection: Connection) -> set[tuple[str, str]]:
    """The endpoints that are disabled, each with its address."""
    query = select(disabled_endpoints.c.endpoint, disabled_endpoints.c.address)
    return {(row.endpoint, row.address) for row in connection.execute(query)}
