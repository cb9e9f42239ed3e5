"""The post office: sends the messages that are due, and writes down what came of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from alerts.ledger import Book, Ledger
from alerts.ledger.outbox import claim_message, disable_endpoint, disabled, expire_messages, settle_message
from alerts.ledger.records import Message
from alerts.notifiers import CannotSendError, Notifier
from alerts.retries import next_attempt
from alerts.transport import Answer, Request

LEASE = timedelta(minutes=3)
"""Longer than any attempt takes. A message whose sender died is sent again after it."""
Send = Callable[[Request], Answer]
log = structlog.get_logger()


@dataclass(frozen=True)
class Post:
    """Delivers from the ledger's outbox, at least once. Several may work on one ledger at once.

    not_received
        Called for every attempt that no receiver took.
    """

    ledger: Ledger
    notifiers: Mapping[str, Notifier]
    send: Send
    not_received: Callable[[], object] = lambda: None

    def deliver(self, now: datetime) -> int:
        """Send what is due, each endpoint until its first failure. How many were received.

        Nothing of the database is held while a message is on the network.
        """
        with self.ledger.writing() as book:
            for late in expire_messages(book.connection, now):
                _expired(book, late, now)
            off = disabled(book.connection)
        endpoints = {name for name, notifier in self.notifiers.items() if (name, notifier.address) not in off}
        received = 0
        while message := self._claim(endpoints, now):
            answer = self._attempt(message, now)
            self._settle(message, answer, now)
            received += answer.received
            if not answer.received:
                endpoints.discard(message.endpoint)
        return received

    def refresh(self, messages: Iterable[Message], now: datetime) -> int:
        """Send messages to those receivers that forget, outside the outbox: once, with nothing written down.

        Each message is taken just before it is sent. A receiver that does not answer is left alone until the next
        call. How many were received.
        """
        with self.ledger.reading() as book:
            off = disabled(book.connection)
        endpoints = {name for name, n in self.notifiers.items() if n.forgets and (name, n.address) not in off}
        received = 0
        for message in messages:
            if message.endpoint not in endpoints:
                continue
            answer = self._attempt(message, now)
            received += answer.received
            if not answer.received:
                log.warning("alert not refreshed", endpoint=message.endpoint, status=answer.status, error=answer.error)
            if answer.status is None:
                endpoints.discard(message.endpoint)
        return received

    def _claim(self, endpoints: set[str], now: datetime) -> Message | None:
        with self.ledger.writing() as book:
            return claim_message(book.connection, endpoints, secrets.token_hex(8), now + LEASE, now)

    def _attempt(self, message: Message, now: datetime) -> Answer:
        try:
            answer = self.send(self.notifiers[message.endpoint].request(message.id, message.body, now))
        except CannotSendError as error:
            answer = Answer(None, str(error))
        if not answer.received:
            self.not_received()
        return answer

    def _settle(self, message: Message, answer: Answer, now: datetime) -> None:
        next_at = next_attempt(message.kind, message.id, message.attempts, answer.retry_after, now)
        about = {"endpoint": message.endpoint, "message_id": message.id, "status": answer.status}
        with self.ledger.writing() as book:
            if not settle_message(book.connection, message, answer, next_at, now):
                return
            if answer.received and message.action:
                _dispatched(book, message, now)
            elif answer.gone:
                address = self.notifiers[message.endpoint].address
                disable_endpoint(book.connection, message.endpoint, address, now)
                reason = "the receiver answered 410 Gone; nothing is sent there until its url changes"
                book.log(now, "endpoint_disabled", message.environment, message.model, **about, reason=reason)
            elif not answer.received and next_at is None:
                reason = answer.error or f"status {answer.status}"
                book.log(now, "delivery_failed", message.environment, message.model, **about, reason=reason)
        if not answer.received:
            log.warning("message not received", **about, attempts=message.attempts, error=answer.error)


def _dispatched(book: Book, message: Message, now: datetime) -> None:
    """The receiver has the request. That proves no effect yet."""
    action = book.action(message.action)
    if action is None or action.state != "requested":
        return
    if action.dry_run:
        book.change_action(action, "dry_run")
    else:
        book.change_action(action, "dispatched", now + action.effect_within)
    about = {"action_id": action.id, "version": action.version, "baseline_version": action.target}
    book.log(now, "rollback_dispatched", action.environment, action.model, **about, dry_run=action.dry_run)


def _expired(book: Book, message: Message, now: datetime) -> None:
    action = book.action(message.action)
    if action is None:
        return
    book.change_action(action, "expired")
    about = {"action_id": action.id, "version": action.version, "baseline_version": action.target}
    reason = f"{message.endpoint} did not take the request within {action.expires_at - action.requested_at}"
    book.log(now, "rollback_expired", action.environment, action.model, **about, reason=reason)
