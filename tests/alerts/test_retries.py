"""When to try again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alerting import BEGIN

from alerts.retries import MessageKind, next_attempt

NOTHING_ASKED = timedelta(0)


def wait(kind: MessageKind, attempts: int, retry_after: timedelta = NOTHING_ASKED, message: str = "msg_1") -> timedelta:
    at = next_attempt(kind, message, attempts, retry_after, BEGIN)
    assert at is not None
    return at - BEGIN


def test_alerts_follow_the_schedule_of_standard_webhooks() -> None:
    """The specification's example: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h after the attempt before."""
    hours = [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 14, 20, 24]
    for attempts, expected in enumerate(hours, 1):
        assert timedelta(hours=expected) <= wait("alert", attempts) <= 1.2 * timedelta(hours=expected)
    assert next_attempt("alert", "msg_1", 10, NOTHING_ASKED, BEGIN) is None


def test_commands_come_quickly_and_go_on_until_they_expire() -> None:
    for attempts, expected in enumerate([5, 15, 45, 120, 120, 120], 1):
        assert timedelta(seconds=expected) <= wait("command", attempts) <= timedelta(seconds=1.2 * expected)
    assert wait("command", 1000) <= timedelta(seconds=144)


@pytest.mark.parametrize("kind", ["alert", "command"])
def test_a_receiver_may_ask_for_more_time_but_not_for_ever(kind: MessageKind) -> None:
    assert wait(kind, 1, timedelta(minutes=10)) == timedelta(minutes=10)
    assert wait(kind, 1, timedelta(days=365)) == timedelta(hours=24)
    assert wait(kind, 1, timedelta(seconds=1)) >= timedelta(seconds=5)


def test_messages_that_failed_together_come_back_apart_and_each_the_same_again() -> None:
    waits = [wait("alert", 5, message=f"msg_{i}") for i in range(50)]
    assert len(set(waits)) == 50
    assert waits == [wait("alert", 5, message=f"msg_{i}") for i in range(50)]
    assert max(waits) - min(waits) > timedelta(minutes=30)  # of the hour that the jitter may take
