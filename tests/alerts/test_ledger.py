"""What the ledger keeps, and who gets a claim."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alerting import BEGIN, HOUR, action, in_threads, ledger_at, window
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from alerts.incidents import Incident
from alerts.ledger import Claim, Ledger, LedgerError
from alerts.ledger.database import migrate, open_database
from alerts.policy import Policy, Verdict

LEASE = timedelta(minutes=10)
KIND = "traffic:3600s"
INCIDENT = Incident.of(Policy("p", "drift"), Verdict("p", "drifted", "2", "s1", "", window(0)))
ACTION = action()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with ledger_at(ledger_url) as ledger:
        yield ledger


def claim_to(number: int, owner: str = "me", model: str = "churn") -> Claim:
    span = window(number)
    return Claim("production", model, KIND, span.start, span.end, owner)


def claim(ledger: Ledger, number: int, owner: str = "me", now: datetime = BEGIN, model: str = "churn") -> bool:
    return ledger.claim(claim_to(number, owner, model), now, LEASE)


def finish(ledger: Ledger, number: int, owner: str = "me") -> bool:
    with ledger.writing() as book:
        return book.finish(claim_to(number, owner), BEGIN)


def last(ledger: Ledger) -> datetime | None:
    return ledger.last_finished("production", "churn", KIND)


# The time line


def test_the_time_line_is_read_from_where_one_was(ledger: Ledger) -> None:
    with ledger.writing() as book:
        for i, model in enumerate(["churn", "fraud", "churn", "churn"]):
            book.log(BEGIN + i * HOUR, f"event{i}", "production", model, value=i)
    everything = ledger.timeline()
    assert [e.event for e in everything] == ["event0", "event1", "event2", "event3"]
    assert [e.event for e in ledger.timeline(after=everything[1].id)] == ["event2", "event3"]
    assert [e.event for e in ledger.timeline(model="churn", limit=2)] == ["event0", "event2"]
    assert [e.event for e in ledger.timeline(newest_first=True, limit=2)] == ["event3", "event2"]


def test_a_line_has_what_is_there(ledger: Ledger) -> None:
    with ledger.writing() as book:
        data = {"features": ["b", "a"], "server": "", "value": 0.0, "dry_run": False, "reason": None, "evidence": []}
        book.log(BEGIN, "drift_found", "staging", "churn", **data)
    (entry,) = ledger.timeline()
    assert entry.as_line() == {
        "at": "2026-03-02T00:00:00Z",
        "event": "drift_found",
        "model": "churn",
        "environment": "staging",
        "features": ["b", "a"],
        "value": 0.0,
        "dry_run": False,
    }


@pytest.mark.parametrize("hours", [-11, 0, 5.5])
def test_times_come_back_exact_and_in_utc_whatever_zone_they_had(ledger: Ledger, hours: float) -> None:
    at = datetime(2026, 3, 29, 1, 30, 0, 123457, tzinfo=timezone(timedelta(hours=hours)))
    with ledger.writing() as book:
        book.log(at, "x", "production", "churn")
    (entry,) = ledger.timeline()
    assert (entry.at, entry.at.tzinfo) == (at, UTC)


def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    with ledger.writing() as book, pytest.raises(Exception, match="offset-naive"):
        book.log(BEGIN.replace(tzinfo=None), "x", "production", "churn")


def test_whoever_reads_the_time_line_piece_by_piece_misses_nothing(ledger: Ledger) -> None:
    """Also when a later transaction is ready before an earlier one."""

    def write_second() -> None:
        with ledger.writing() as book:
            book.log(BEGIN, "second", "production", "churn")

    second = threading.Thread(target=write_second)
    with ledger.writing() as book:
        book.log(BEGIN, "first", "production", "churn")
        second.start()
        second.join(0.2)
        read = ledger.timeline()
    second.join()
    read += ledger.timeline(after=max((e.id for e in read), default=0))
    assert [e.event for e in read] == ["first", "second"]


def test_nul_characters_are_left_out(ledger: Ledger) -> None:
    with ledger.writing() as book:
        book.log(BEGIN, "x", "production", "ch\0urn", features=["a\0"], server="s\0")
        book.keep(replace(INCIDENT, state="firing", server="s\0", features=("a\0",)), new=True)
    assert [e.event for e in ledger.timeline(model="churn")] == ["x"]
    assert [i.server for i in ledger.open_incidents()] == ["s"]


# Incidents and actions


def test_incidents_come_back_as_they_were(ledger: Ledger) -> None:
    firing = replace(INCIDENT, state="firing", since=BEGIN, features=("b", "a"), value=0.25, evidence=("f1",))
    pending = replace(INCIDENT, key="other", state="pending")
    with ledger.writing() as book:
        book.keep(firing, new=True)
        book.keep(pending, new=True)
    assert ledger.open_incidents() == [firing]
    with ledger.writing() as book:
        assert book.unsettled("production", "churn") == [pending, firing]
        assert book.unsettled("staging", "churn") == []
        book.keep(replace(firing, state="resolved"), new=False)
    assert ledger.open_incidents() == []


def test_an_incident_as_json_names_its_place_and_since_when() -> None:
    shown = replace(INCIDENT, state="firing", since=BEGIN, features=("a",)).to_dict()
    assert shown.items() >= {"version": "2", "server": "s1", "policy": "p", "model": "churn", "state": "firing"}.items()
    assert (shown["since"], shown["features"]) == ("2026-03-02T00:00:00+00:00", ["a"])


def test_actions_come_back_as_they_were(ledger: Ledger) -> None:
    with ledger.writing() as book:
        book.add_action(ACTION)
    assert ledger.actions("production", "churn") == [ACTION]
    with ledger.writing() as book:
        moved = book.change_action(ACTION, "dispatched", BEGIN + HOUR)
    assert (
        ledger.actions("production", "churn") == [moved] == [replace(ACTION, state="dispatched", deadline=BEGIN + HOUR)]
    )


def test_the_database_itself_refuses_a_second_action_in_flight(ledger: Ledger) -> None:
    with ledger.writing() as book:
        book.add_action(ACTION)
        book.add_action(replace(ACTION, id="act_2", model="fraud"))
        book.add_action(replace(ACTION, id="act_3", environment="staging"))
    with pytest.raises(IntegrityError), ledger.writing() as book:
        book.add_action(replace(ACTION, id="act_4"))
    with ledger.writing() as book:
        book.change_action(ACTION, "effective")
        book.add_action(replace(ACTION, id="act_4"))


def test_a_transaction_happens_whole_or_not_at_all(ledger: Ledger) -> None:
    def write_and_fail() -> None:
        with ledger.writing() as book:
            book.log(BEGIN, "x", "production", "churn")
            book.keep(INCIDENT, new=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with ledger.reading() as book:
        assert (book.timeline(0, None, 9, newest_first=False), book.incident(INCIDENT.key)) == ([], None)


def test_readers_do_not_wait_for_a_writer(ledger: Ledger) -> None:
    with ledger.writing() as book:
        book.log(BEGIN, "x", "production", "churn")
        assert ledger.timeline() == []
    assert len(ledger.timeline()) == 1


def test_many_threads_write_at_once(ledger: Ledger) -> None:
    def write(name: int) -> None:
        for i in range(25):
            with ledger.writing() as book:
                known = len(book.timeline(0, None, 1000, newest_first=False))  # reading first, then writing
                book.log(BEGIN, f"{name}-{i}", "production", "churn", known=known)

    in_threads(4, write)
    entries = ledger.timeline()
    assert [e.data["known"] for e in entries] == list(range(100))


def test_a_writer_whose_turn_does_not_come_says_so(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerts.ledger.database.BUSY_SECONDS", 0.2)
    with ledger_at(ledger_url) as one, ledger_at(ledger_url) as other, one.writing():
        with pytest.raises(LedgerError, match=r"the ledger at .* cannot be used: .*lock"):
            claim(other, 0)
        assert other.timeline() == []


# Claims


def test_a_window_is_claimed_once_and_never_again_once_finished(ledger: Ledger) -> None:
    assert claim(ledger, 0)
    assert not claim(ledger, 0, "other")
    assert last(ledger) is None
    finish(ledger, 0)
    assert not claim(ledger, 0, "other", now=BEGIN + 1000 * LEASE)
    assert last(ledger) == window(0).end


def test_a_lease_can_be_taken_over_when_it_has_ended(ledger: Ledger) -> None:
    assert claim(ledger, 0)
    assert not claim(ledger, 0, "other", now=BEGIN + LEASE - timedelta(microseconds=1))
    assert claim(ledger, 0, "other", now=BEGIN + LEASE)
    assert not claim(ledger, 0, "me", now=BEGIN + LEASE)


def test_its_owner_alone_can_let_go_of_a_window(ledger: Ledger) -> None:
    assert claim(ledger, 0)
    ledger.release(claim_to(0, "other"))
    assert not claim(ledger, 0, "other")
    ledger.release(claim_to(0))
    assert claim(ledger, 0, "other")
    assert finish(ledger, 0, "other")
    ledger.release(claim_to(0, "other"))
    assert not claim(ledger, 0)


def test_a_window_is_finished_once_and_by_whoever_has_it(ledger: Ledger) -> None:
    assert claim(ledger, 0)
    assert claim(ledger, 0, "other", now=BEGIN + LEASE)
    assert not finish(ledger, 0), "its lease has run out, and another has the window"
    assert last(ledger) is None
    assert finish(ledger, 0, "other")
    assert not finish(ledger, 0, "other")
    assert not finish(ledger, 1), "nobody has claimed it"


def test_a_window_waits_for_the_one_before(ledger: Ledger) -> None:
    """Else a later window would be finished first, and the earlier one would never be judged."""
    assert claim(ledger, 0)
    assert not claim(ledger, 1, "other")
    finish(ledger, 0)
    assert claim(ledger, 1, "other")
    assert claim(ledger, 1, model="fraud")


def test_kinds_and_models_are_claimed_apart(ledger: Ledger) -> None:
    span = window(0)
    for environment, model, kind in [("e", "m", "k"), ("f", "m", "k"), ("e", "n", "k"), ("e", "m", "l")]:
        assert ledger.claim(Claim(environment, model, kind, span.start, span.end, "me"), BEGIN, LEASE)


def test_of_many_judges_one_gets_each_window(ledger: Ledger) -> None:
    won: list[tuple[int, int]] = []
    start = threading.Barrier(6)

    def judge(owner: int) -> None:
        start.wait()
        number = 0
        while number < 12:
            if claim(ledger, number, str(owner)):
                won.append((number, owner))
                assert finish(ledger, number, str(owner))
            number = ((last(ledger) or BEGIN) - BEGIN) // HOUR

    in_threads(6, judge)
    assert sorted(number for number, _ in won) == list(range(12))


# The database


def test_a_database_that_is_not_there_is_named_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as refused:
        Ledger(f"sqlite:///{tmp_path}/none/ledger.db").create()
    assert str(refused.value) == (
        f"the ledger at sqlite:///{tmp_path}/none/ledger.db cannot be used: unable to open database file; "
        "its folder should exist, be writable and have room, and no writer should hold it for long"
    )


def test_creating_is_harmless_when_done_before(ledger: Ledger) -> None:
    with ledger.writing() as book:
        book.log(BEGIN, "x", "production", "churn")
    ledger.create()
    assert len(ledger.timeline()) == 1


@pytest.fixture
def engine(ledger_url: str) -> Iterator[Engine]:
    engine = open_database(ledger_url)
    yield engine
    engine.dispose()


def columns(engine: Engine) -> set[str]:
    return {c["name"] for c in inspect(engine).get_columns("disabled_endpoints")}


def test_an_older_database_gets_the_steps_it_has_not_had(engine: Engine) -> None:
    steps = (
        "ALTER TABLE disabled_endpoints ADD COLUMN note TEXT",
        "ALTER TABLE disabled_endpoints ADD COLUMN who TEXT",
    )
    migrate(engine, ())
    assert "note" not in columns(engine)
    migrate(engine, steps[:1])
    migrate(engine, steps[:1])
    assert {"note"} == columns(engine) & {"note", "who"}
    migrate(engine, steps)
    assert {"note", "who"} <= columns(engine)


def test_a_database_of_a_later_telltale_is_refused(engine: Engine) -> None:
    migrate(engine, ("ALTER TABLE disabled_endpoints ADD COLUMN note TEXT",))
    with pytest.raises(LedgerError, match="use the later Telltale"):
        migrate(engine, ())


def test_sqlite_writes_ahead_and_holds_to_foreign_keys(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()
