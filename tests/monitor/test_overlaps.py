"""A log that is read again with other boundaries, some of its hours being sealed: the audit makes all count once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from reread import Log

from monitor.fleet import served
from monitor.folding import fold, remove_sealed, seal, taken_in_twice
from monitor.overlaps import Held, overlaps
from monitor.service import Service
from monitor.store import StoreError

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SIZE = 24
LAST = SIZE - 1
REFERENCE = pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200})
TABLES = (
    "batches",
    "batch_hours",
    "predictions",
    "features",
    "profile_batches",
    "profile_marks",
    "profile_hours",
    "profile_folds",
    "profile_seals",
    "sealed_batches",
)
boundaries = st.sets(st.integers(1, LAST), max_size=4).map(sorted)


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    service = make_service(models={"m": {"features": {"x": "numeric", "c": "categorical"}}})
    service.register_reference("m", REFERENCE, "train")
    return service


class World:
    """A log whose first half is an hour before its second one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        hours = [NOON - 3 * HOUR + HOUR * (n >= SIZE // 2) for n in range(SIZE)]
        self.log = Log([(ndjson([prediction(n, at)]), at + HOUR / 2) for n, at in enumerate(hours)])
        for table in TABLES:
            service.store.execute(f"TRUNCATE TABLE {table}")

    def read(self, starts: Sequence[int], taken: datetime | None = None) -> None:
        for first, following in zip((0, *starts), (*starts, SIZE), strict=True):
            self.log.take(self.service, first, following - 1, taken)

    def seal(self, hours: int) -> int:
        """Let sums stand for all that there is of the first hours. Gives for how many they do."""
        store, sealed = self.service.store, [NOON - 3 * HOUR, NOON - 2 * HOUR][:hours]
        fold(store, "production", "m", NOON - 3 * HOUR, NOON, NOON)
        if not sealed:
            return 0
        twice = taken_in_twice(store, NOON - DAY, NOON)
        done = seal(store, "production", "m", sealed, NOON, NOON, twice)
        remove_sealed(store, sealed, NOON)
        return done

    def audit(self) -> list[str]:
        found = self.log.auditor(self.service).audit(NOON - 4 * HOUR, NOON, NOON + HOUR, repair=True)
        return [f"{d.what} {d.expected} {d.found} {d.batch} {d.repair}" for d in found]

    def counted(self) -> tuple[int, int, int]:
        """Events in what judging reads, rows, and how many different ones."""
        rows = self.service.store.select(
            "SELECT count() AS n, uniqExact(prediction_id) AS ids FROM predictions FINAL"
        ).row(0)
        return int(served(self.service.store, "production", "m", NOON - 4 * HOUR, NOON)["rows"].sum()), *rows


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=boundaries, again=boundaries, sealed=st.integers(0, 2), fails=st.none() | st.integers(0, 60))
@example(first=[4, 10], again=[7, 16], sealed=2, fails=None)
@example(first=[], again=[12], sealed=2, fails=None)
def test_a_log_that_is_read_again_counts_once(
    service: Service, first: Sequence[int], again: Sequence[int], sealed: int, fails: int | None
) -> None:
    is_read_twice(service, first, again, sealed, fails)


@pytest.mark.parametrize(
    ("first", "again", "fails"),
    [([12], [6], 5), ([], [1], 19), ([], [1], 23)],
)
def test_a_repair_over_sealed_hours_that_is_interrupted_is_gone_on_with(
    service: Service, first: Sequence[int], again: Sequence[int], fails: int
) -> None:
    is_read_twice(service, first, again, 1, fails)


def test_the_hourly_job_seals_nothing_that_was_taken_in_twice(
    service: Service, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(service)
    world.read([10])
    world.read([6], taken=NOON)
    monkeypatch.setattr(service, "_judged_until", lambda _: clock.at)
    for hours in range(2):
        clock.at = NOON + 4 * DAY * (1 + hours)
        service.remove_old(clock.at)
    assert service.store.select("SELECT count() AS n FROM profile_seals")["n"].to_list() == [0]
    while world.audit():
        pass
    for hours in range(2):
        clock.at = NOON + 12 * DAY + 4 * DAY * hours
        service.remove_old(clock.at)
    assert service.store.select("SELECT count() AS n FROM profile_seals")["n"].to_list() == [2]
    assert world.counted() == (SIZE, SIZE, SIZE)


def is_read_twice(service: Service, first: Sequence[int], again: Sequence[int], sealed: int, fails: int | None) -> None:
    world = World(service)
    world.read(first)
    world.seal(sealed)
    world.read(again)
    if fails is not None:
        fail(world, fails)
    rounds = iter(range(6))
    while told := world.audit():
        assert next(rounds, None) is not None, told
        assert world.counted()[2] == SIZE, "no row goes that is not elsewhere"
    assert world.counted() == (SIZE, SIZE, SIZE)


@pytest.mark.parametrize("again", [[], [6, 20], [12]])
@pytest.mark.parametrize("sealed", [0, 1])
def test_a_log_that_is_read_again_days_later_counts_once(service: Service, again: Sequence[int], sealed: int) -> None:
    world = World(service)
    world.read([10])
    world.seal(sealed)
    later = NOON + 5 * DAY
    world.read(again, taken=later)
    auditor = world.log.auditor(service)
    rounds = iter(range(4))
    while told := auditor.audit(later - DAY, later + HOUR, later + HOUR, repair=True):
        assert next(rounds, None) is not None, told
    assert world.counted() == (SIZE, SIZE, SIZE)


def test_an_hour_with_messages_that_were_taken_in_twice_is_not_sealed(service: Service) -> None:
    world = World(service)
    world.read([])
    assert world.seal(1) == 1
    world.read([6])
    assert world.seal(2) == 0
    while world.audit():
        pass
    assert world.counted() == (SIZE, SIZE, SIZE)
    assert world.seal(2) == 1, "the first hour's sum stands for all"


def fail(world: World, after: int) -> None:
    """An audit in which the store is away after so many statements that write."""
    store, done = world.service.store, iter(range(after))
    insert, execute = store.insert, store.execute

    def failing(call: Any) -> Any:
        def called(*given: Any) -> None:
            if next(done, None) is None:
                raise StoreError("away")
            call(*given)

        return called

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "insert", failing(insert))
        patched.setattr(store, "execute", failing(execute))
        world.audit()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.none() | st.integers(0, 12)), max_size=8))
def test_what_stays_and_what_is_taken_in_again_is_all_there_was_and_nothing_twice(
    drawn: list[tuple[int, int, int | None]],
) -> None:
    batches = {
        first: Held(str(first), first, first + size, None if sealed is None else first + sealed)
        for first, size, sealed in drawn
    }
    held = list(batches.values())
    told = {each.held.batch: each for each in overlaps(held)}
    assume(not any(each.is_settled for each in told.values()))
    stays = [range(h.first, h.until + 1) for h in held if h.batch not in told or h.sealed_last is not None]
    again = {n for each in told.values() for first, last in each.lacking for n in range(first, last + 1)}
    kept = {n for some in stays for n in some}
    assert kept | again == {n for h in held for n in range(h.first, max(h.last, h.until) + 1)}
    assert sum(map(len, stays)) == len(kept), "nothing that stays is there twice"
    assert not again & kept
