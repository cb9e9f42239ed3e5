"""What a server adds to a ledger: passwords, restarts, connections that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from alerting import BEGIN, ledger_at
from postgres import PASSWORD, Postgres, shown
from processes import free_port
from sqlalchemy import URL, text

from alerts.ledger import Ledger, LedgerError


@pytest.fixture
def url(postgres: Postgres) -> Iterator[URL]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def ledger(url: URL) -> Iterator[Ledger]:
    with ledger_at(shown(url)) as ledger:
        yield ledger


def write(ledger: Ledger, event: str) -> None:
    with ledger.writing() as book:
        book.log(BEGIN, event, "production", "churn")


def events(ledger: Ledger) -> list[str]:
    return [e.event for e in ledger.timeline()]


def test_a_restarted_server_is_survived(ledger: Ledger, postgres: Postgres) -> None:
    write(ledger, "before")
    postgres.node.stop()
    try:
        for use in (ledger.timeline, lambda: write(ledger, "meanwhile"), ledger.create):
            with pytest.raises(LedgerError, match=r"the ledger at postgresql://.* cannot be used: .*(refused|closed)"):
                use()
    finally:
        postgres.node.start()
    assert events(ledger) == ["before"]
    write(ledger, "after")
    assert events(ledger) == ["before", "after"]


def test_a_quick_restart_between_two_uses_goes_unnoticed(ledger: Ledger, postgres: Postgres) -> None:
    write(ledger, "before")
    postgres.node.stop()
    postgres.node.start()
    write(ledger, "after")
    assert events(ledger) == ["before", "after"]


def test_a_connection_lost_in_a_transaction_takes_all_of_it_along(ledger: Ledger, postgres: Postgres) -> None:
    def write_and_lose() -> None:
        with ledger.writing() as book:
            book.log(BEGIN, "first", "production", "churn")
            process = book.connection.scalar(text("SELECT pg_backend_pid()"))
            postgres.run(f"SELECT pg_terminate_backend({process}, 5000)")
            book.log(BEGIN, "second", "production", "churn")

    with pytest.raises(LedgerError, match="cannot be used"):
        write_and_lose()
    assert events(ledger) == []
    write(ledger, "after")
    assert events(ledger) == ["after"]


def test_a_writer_that_pauses_too_long_loses_its_turn_and_what_it_wrote(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.ledger.database.IDLE_SECONDS", 0.2)

    def pause(paused: Ledger, other: Ledger) -> None:
        with paused.writing() as book:
            book.log(BEGIN, "paused", "production", "churn")
            write(other, "other")
            book.log(BEGIN, "woken", "production", "churn")

    with ledger_at(shown(url)) as paused, ledger_at(shown(url)) as other:
        with pytest.raises(LedgerError, match="cannot be used"):
            pause(paused, other)
        assert events(other) == events(paused) == ["other"]


def test_a_session_has_utc_whatever_the_server_has(ledger: Ledger) -> None:
    with ledger.reading() as book:
        now = book.connection.scalar(text("SELECT now()"))
    assert now.utcoffset() == timedelta(0)


def test_a_password_lets_the_user_in_and_is_never_shown(url: URL) -> None:
    password, place = str(url.password), shown(url._replace(password=None))
    ledger = Ledger(place, password)
    ledger.create()
    write(ledger, "let in")
    assert events(ledger) == ["let in"]
    assert password not in f"{ledger!r}{vars(ledger)}"
    ledger.close()
    for wrong in ("not-" + password, None):
        with pytest.raises(LedgerError) as refused:
            Ledger(place, wrong).create()
        message = str(refused.value)
        assert message.startswith(f"the ledger at {place} cannot be used: ")
        assert "let the user in" in message
        assert password not in f"{message}{refused.value.__cause__!r}"


def test_a_password_in_the_url_is_not_shown_either(url: URL) -> None:
    with pytest.raises(LedgerError) as refused:
        Ledger(shown(url.set(database="none"))).create()
    assert 'database "none" does not exist' in str(refused.value)
    assert str(url.password) not in str(refused.value)


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    with pytest.raises(LedgerError) as refused:
        Ledger(f"postgresql://telltale@127.0.0.1:{port}/ledger", PASSWORD).timeline()
    message = str(refused.value)
    assert message.startswith(f"the ledger at postgresql://telltale@127.0.0.1:{port}/ledger cannot be used: ")
    assert "refused" in message
    assert PASSWORD not in message
    assert len(message.splitlines()) == 1
