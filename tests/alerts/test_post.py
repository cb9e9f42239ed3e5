"""Messages on their way: stored, sent in order, tried again, given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alerting import BEGIN, KEY_TEXT, LOOPBACK, Receiver, Script, action, in_threads, ledger_at, talking, webhook
from sqlalchemy import select

from alerts.delivery import send
from alerts.ledger import Ledger
from alerts.ledger.records import Message
from alerts.ledger.schema import outbox
from alerts.notifiers.webhook import Webhook
from alerts.post import LEASE, Post, Send
from alerts.retries import MessageKind
from alerts.signing import secret_bytes, verify
from alerts.transport import Answer, Request

MINUTE = timedelta(minutes=1)
OK, FAILS = Script(200), Script(500, body=b"out of order")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with ledger_at(ledger_url) as ledger:
        yield ledger


def put(
    ledger: Ledger,
    name: str,
    endpoint: str = "ops",
    kind: MessageKind = "alert",
    model: str = "churn",
    **more: Any,
) -> None:
    message = Message(f"msg_{name}", kind, endpoint, "production", model, b'{"name":"%s"}' % name.encode(), **more)
    with ledger.writing() as book:
        book.enqueue(message, BEGIN)


def post_to(ledger: Ledger, folder: Path, send: Send = send, **urls: str) -> Post:
    return Post(ledger, {name: webhook(url, folder) for name, url in urls.items()}, send)


def row(ledger: Ledger, name: str) -> Mapping[str, Any]:
    with ledger.reading() as book:
        found = book.connection.execute(select(outbox).where(outbox.c.id == f"msg_{name}")).one()
        return found._asdict()


def names(receiver: Receiver) -> list[str]:
    return [r.message["name"] for r in receiver.received]


def events(ledger: Ledger) -> list[str]:
    return [e.event for e in ledger.timeline()]


def test_a_message_is_sent_once_signed_with_the_time_of_the_attempt(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    now = BEGIN + 7 * MINUTE
    with Receiver() as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        assert [post.deliver(now), post.deliver(now + MINUTE)] == [1, 0]
    (got,) = receiver.received
    assert got.body == b'{"name":"a"}'
    assert verify(secret_bytes(KEY_TEXT), got.headers, got.body, now) == "msg_a"
    assert got.headers["webhook-timestamp"] == str(int(now.timestamp()))
    assert row(ledger, "a").items() >= {"state": "delivered", "attempts": 1, "status": 200, "delivered_at": now}.items()


def test_a_failed_message_comes_again_with_the_same_id_and_body_and_a_new_signature(
    ledger: Ledger, tmp_path: Path
) -> None:
    put(ledger, "a")
    with Receiver(FAILS, OK) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        assert post.deliver(BEGIN) == 0
        assert row(ledger, "a").items() >= {"state": "pending", "status": 500, "answer": "out of order"}.items()
        assert post.deliver(BEGIN + timedelta(seconds=4)) == 0
        assert post.deliver(BEGIN + timedelta(seconds=7)) == 1
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    for got, seconds in ((first, 0), (second, 7)):
        verify(secret_bytes(KEY_TEXT), got.headers, got.body, BEGIN + timedelta(seconds=seconds))


def test_a_receiver_that_asks_for_time_gets_it(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    with Receiver(Script(429, {"retry-after": "600"}), OK) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        assert [post.deliver(BEGIN + m * MINUTE) for m in (0, 1, 9, 10)] == [0, 0, 0, 1]
    assert len(receiver.received) == 2


def test_an_alert_is_given_up_after_ten_attempts_and_the_next_one_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    put(ledger, "b")
    with Receiver(*[FAILS] * 10, OK) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        now = BEGIN
        while row(ledger, "a")["state"] == "pending":
            post.deliver(now)
            now += timedelta(hours=1)
        post.deliver(now)
    assert names(receiver) == ["a"] * 10 + ["b"]
    assert row(ledger, "a").items() >= {"state": "failed", "attempts": 10}.items()
    (entry,) = ledger.timeline()
    assert (entry.event, entry.data["reason"], entry.data["message_id"]) == ("delivery_failed", "status 500", "msg_a")


def test_resolved_does_not_overtake_firing(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "firing")
    put(ledger, "resolved")
    put(ledger, "other_model", model="fraud")
    with Receiver(FAILS, OK) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        post.deliver(BEGIN)
        post.deliver(BEGIN + timedelta(seconds=1))
        assert names(receiver) == ["firing", "other_model"]
        post.deliver(BEGIN + timedelta(seconds=10))
    assert names(receiver) == ["firing", "other_model", "firing", "resolved"]


def test_a_broken_endpoint_holds_up_no_other_and_is_tried_once_a_round(ledger: Ledger, tmp_path: Path) -> None:
    for model in ("churn", "fraud"):
        put(ledger, f"a_{model}", "broken", model=model)
        put(ledger, f"b_{model}", "fine", model=model)
    with Receiver(FAILS) as broken, Receiver() as fine:
        assert post_to(ledger, tmp_path, broken=broken.url, fine=fine.url).deliver(BEGIN) == 2
    assert (names(broken), names(fine)) == (["a_churn"], ["b_churn", "b_fraud"])


def test_commands_go_first_and_do_not_wait_for_alerts(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "alert")
    put(ledger, "command", kind="command", expires_at=BEGIN + 15 * MINUTE)
    with Receiver(OK, FAILS) as receiver:
        post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN)
        put(ledger, "command2", kind="command", expires_at=BEGIN + 15 * MINUTE)
        receiver.script = [OK]
        post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN + timedelta(seconds=1))
    assert names(receiver) == ["command", "alert", "command2"]


def test_a_command_is_tried_until_it_expires_and_never_after(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.writing() as book:
        book.add_action(action("requested", BEGIN))
    put(ledger, "a", kind="command", action="act_1", expires_at=BEGIN + 15 * MINUTE)
    with Receiver(FAILS) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        for seconds in range(0, 20 * 60, 10):
            post.deliver(BEGIN + timedelta(seconds=seconds))
    times = [int(r.headers["webhook-timestamp"]) - int(BEGIN.timestamp()) for r in receiver.received]
    assert max(times) < 15 * 60
    assert len(times) >= 8  # 0, 5, 15, 45 and then every 120 to 144 s
    assert row(ledger, "a")["state"] == "expired"
    assert [a.state for a in ledger.actions("production", "churn")] == ["expired"]
    assert events(ledger) == ["rollback_expired"]


def test_a_410_disables_the_endpoint_until_its_url_changes(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    put(ledger, "b", model="fraud")
    put(ledger, "c", "other")
    with Receiver(Script(410)) as gone, Receiver() as other, Receiver() as moved:
        post = post_to(ledger, tmp_path, ops=gone.url, other=other.url)
        for minutes in range(0, 600, 20):
            post.deliver(BEGIN + minutes * MINUTE)
        assert (names(gone), names(other)) == (["a"], ["c"])
        assert events(ledger) == ["endpoint_disabled"]
        assert gone.url not in str(ledger.timeline()[0].as_line())
        post_to(ledger, tmp_path, ops=moved.url).deliver(BEGIN + 601 * MINUTE)
    assert sorted(names(moved)) == ["a", "b"]


def test_a_command_to_a_disabled_endpoint_expires(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.writing() as book:
        book.add_action(action("requested", BEGIN))
    put(ledger, "a", kind="command", action="act_1", expires_at=BEGIN + 15 * MINUTE)
    with Receiver(Script(410)) as gone:
        post = post_to(ledger, tmp_path, ops=gone.url)
        post.deliver(BEGIN)
        post.deliver(BEGIN + 15 * MINUTE)
    assert events(ledger) == ["endpoint_disabled", "rollback_expired"]


def test_messages_to_an_endpoint_that_is_not_configured_wait(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a", "removed")
    with Receiver() as receiver:
        assert post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN) == 0
        assert post_to(ledger, tmp_path, removed=receiver.url).deliver(BEGIN + MINUTE) == 1


def test_nobody_answering_is_tried_again_with_the_reason_kept(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    with talking(lambda connection: connection.close()) as port:
        url = f"http://127.0.0.1:{port}/secret-path"
        post_to(ledger, tmp_path, ops=url).deliver(BEGIN)
    kept = row(ledger, "a")
    assert (kept["state"], kept["status"], kept["attempts"]) == ("pending", None, 1)
    assert kept["error"].startswith(f"http://127.0.0.1:{port}: ")
    assert "secret" not in kept["error"]


def test_a_missing_secret_is_a_failed_attempt_that_says_where_it_should_be(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(ledger, "a")
    with Receiver() as receiver:
        ops = Webhook("webhook", receiver.url, secret_env="OPS_SECRET", allow_networks=LOOPBACK)  # noqa: S106 - the name of a variable
        post = Post(ledger, {"ops": ops}, send)
        assert post.deliver(BEGIN) == 0
        assert "OPS_SECRET" in row(ledger, "a")["error"]
        monkeypatch.setenv("OPS_SECRET", KEY_TEXT)
        assert post.deliver(BEGIN + MINUTE) == 1
    assert len(receiver.received) == 1


def test_an_answer_is_kept_up_to_a_kibibyte_whatever_is_in_it(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    with Receiver(Script(500, body=b"\x00\xff" + b"y" * 5000)) as receiver:
        post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN)
    assert row(ledger, "a")["answer"] == "\ufffd" + "y" * 1022


# Crashes and company


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize("arrived", [False, True])
def test_after_a_crash_while_sending_the_message_still_goes_out_with_the_same_id(
    ledger: Ledger, tmp_path: Path, arrived: bool
) -> None:
    def crash(request: Request) -> Answer:
        if arrived:
            send(request)
        raise PowerCutError

    put(ledger, "a")
    put(ledger, "b")
    with Receiver() as receiver:
        with pytest.raises(PowerCutError):
            post_to(ledger, tmp_path, crash, ops=receiver.url).deliver(BEGIN)
        after = post_to(ledger, tmp_path, ops=receiver.url)
        assert after.deliver(BEGIN + LEASE - timedelta(seconds=1)) == 0
        assert after.deliver(BEGIN + LEASE) == 2
    assert names(receiver) == (["a"] if arrived else []) + ["a", "b"]
    assert {r.id for r in receiver.received if r.message["name"] == "a"} == {"msg_a"}


def test_a_sender_that_was_given_up_writes_nothing_over_its_successor(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")

    def slow(_: Request) -> Answer:
        assert post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN + LEASE) == 1
        return Answer(500)

    with Receiver() as receiver:
        post_to(ledger, tmp_path, slow, ops=receiver.url).deliver(BEGIN)
    assert row(ledger, "a").items() >= {"state": "delivered", "attempts": 2, "status": 200}.items()


def test_an_attempt_that_was_given_up_does_not_blur_the_one_after(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")

    def slow(_: Request) -> Answer:
        post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN + LEASE)
        return Answer(503, body="first")

    with Receiver(Script(500, body=b"second")) as receiver:
        post_to(ledger, tmp_path, slow, ops=receiver.url).deliver(BEGIN)
    assert row(ledger, "a").items() >= {"state": "pending", "status": 500, "answer": "second"}.items()


def test_other_messages_do_not_wait_for_one_that_is_being_sent(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    put(ledger, "b", model="fraud")

    def slow(_: Request) -> Answer:
        assert post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN) == 1
        return Answer(200)

    with Receiver() as receiver:
        post_to(ledger, tmp_path, slow, ops=receiver.url).deliver(BEGIN)
    assert names(receiver) == ["b"]


def test_a_command_does_not_expire_while_it_is_being_sent(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.writing() as book:
        book.add_action(action("requested", BEGIN))
    put(ledger, "a", kind="command", action="act_1", expires_at=BEGIN + MINUTE)

    def slow(_: Request) -> Answer:
        post_to(ledger, tmp_path, ops="http://127.0.0.1/").deliver(BEGIN + MINUTE)
        return Answer(200)

    post_to(ledger, tmp_path, slow, ops="http://127.0.0.1/").deliver(BEGIN)
    assert events(ledger) == ["rollback_dispatched"]


def test_the_ledger_is_free_while_a_message_is_on_the_network(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a")
    written: list[int] = []

    def write_meanwhile() -> None:
        with ledger.writing() as book:
            book.log(BEGIN, "meanwhile", "production", "churn")
        written.append(len(receiver.received))

    with Receiver(on_request=write_meanwhile) as receiver:
        assert post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN) == 1
    assert written == [1]


def test_workers_at_once_send_every_message_once_and_in_order(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(5):
        for model in ("churn", "fraud", "spam"):
            put(ledger, f"{model}{number}", model=model)
    workers = 3
    together = threading.Barrier(workers)

    def work(_: int) -> None:
        together.wait()
        for _ in range(15):
            post.deliver(BEGIN)

    with Receiver(on_request=pause(0.005)) as receiver:
        post = post_to(ledger, tmp_path, ops=receiver.url)
        in_threads(workers, work)
    for model in ("churn", "fraud", "spam"):
        assert [n for n in names(receiver) if n.startswith(model)] == [f"{model}{i}" for i in range(5)]


def pause(seconds: float) -> Callable[[], None]:
    never = threading.Event()

    def wait() -> None:
        never.wait(seconds)

    return wait


@pytest.mark.parametrize(("dry_run", "state"), [(False, "dispatched"), (True, "dry_run")])
def test_a_command_that_was_received_moves_its_action(
    ledger: Ledger, tmp_path: Path, dry_run: bool, state: str
) -> None:
    with ledger.writing() as book:
        book.add_action(replace(action("requested", BEGIN), dry_run=dry_run))
    put(ledger, "a", kind="command", action="act_1", expires_at=BEGIN + 15 * MINUTE)
    with Receiver() as receiver:
        post_to(ledger, tmp_path, ops=receiver.url).deliver(BEGIN + MINUTE)
    (moved,) = ledger.actions("production", "churn")
    expected: datetime | None = None if dry_run else BEGIN + 16 * MINUTE
    assert (moved.state, moved.deadline) == (state, expected)
    (entry,) = ledger.timeline()
    assert (entry.event, entry.data["dry_run"]) == ("rollback_dispatched", dry_run)
