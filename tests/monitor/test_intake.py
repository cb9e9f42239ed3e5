"""Exactly once, through crashes, rebalances and refusals, on a log in memory that is as strict as the real one."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from fake_log import FakeLog, FakeSource, Later, Shelf
from given import NOON

from monitor.batches import Batch, Buffer, Intent, Limits, read_intent
from monitor.dead_letter_watch import TooManyDeadLettersError
from monitor.ingest import Origin
from monitor.intake import Intake, run_intake
from monitor.metrics import Metrics
from monitor.sources import Mark, Message, Place, SourceError

PLACE = Place("t", 0)
METRIC = "telltale_kafka_"
SMALL = Limits(rows=5, size=10_000, seconds=0.0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.SHORTEST_PAUSE_SECONDS", 0.0)


class Reader:
    """One member of the group with its worker, in this thread."""

    def __init__(self, log: FakeLog, shelf: Shelf, limits: Limits = SMALL, *, deaf_to_seek: bool = False) -> None:
        self.worker = Later()
        self.source: FakeSource = log.join(deaf_to_seek=deaf_to_seek)
        self.metrics = Metrics()
        self.at = NOON
        self.intake = Intake(
            self.source, shelf, self.metrics, limits, self.worker, monotonic=lambda: 0.0, now=lambda: self.at
        )

    def step(self) -> None:
        self.intake.step()

    def count(self, metric: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"{METRIC}{metric}_total")

    def lag(self, unit: str, partition: int) -> float | None:
        labels = {"topic": "t", "partition": str(partition)}
        return self.metrics.registry.get_sample_value(f"{METRIC}lag_{unit}", labels)

    def held(self) -> float | None:
        return self.metrics.registry.get_sample_value("telltale_unflushed_seconds")

    def drain(self, log: FakeLog) -> None:
        for _ in range(200):
            self.step()
            self.worker.run()
        assert all(log.marks.get(p, Mark(0)).offset == log.end(p) for p in self.source.assignment())


def everything(log: FakeLog) -> Counter[bytes]:
    return Counter(line for messages in log.messages.values() for m in messages for line in m.lines)


def filled(partitions: int = 1, messages: int = 23) -> FakeLog:
    log = FakeLog(partitions)
    for n in range(messages):
        log.append(Place("t", n % partitions), b"%d" % n)
    return log


def test_all_lines_are_taken_in_once_and_committed() -> None:
    log, shelf = filled(3), Shelf()
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert sum(shelf.profiles.values()) == 23
    assert {read_intent(m.note) for m in log.marks.values()} == {Intent("first")}


def test_nothing_is_taken_in_before_its_intent_is_committed() -> None:
    log, shelf = filled(), Shelf()
    reader = Reader(log, shelf)
    for _ in range(4):
        reader.step()
    assert shelf.rows == {}
    assert read_intent(log.marks[PLACE].note) == Intent("first", 4, "r1")


def test_a_refused_commit_takes_nothing_in() -> None:
    log, shelf = filled(), Shelf()
    reader = Reader(log, shelf)
    reader.step()  # anchors
    log.rebalance()
    reader.source.refuses = True  # as a broker that has put the member out
    for _ in range(5):
        reader.step()
        reader.worker.run()
    assert shelf.rows == {}


def test_a_batch_that_was_begun_is_formed_again_exactly_by_the_next_owner() -> None:
    log, shelf = filled(), Shelf()
    first = Reader(log, shelf)
    for _ in range(3):
        first.step()
    shelf.die_between = True
    with pytest.raises(KeyboardInterrupt):
        first.worker.run()
    assert (len(shelf.rows), shelf.profiles) == (5, {})
    log.leave(first.source)
    shelf.die_between = False
    second = Reader(log, shelf, Limits(rows=100, size=10_000, seconds=0.0))
    second.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert sum(shelf.profiles.values()) == 23
    assert shelf.profiles["kafka/t/0/first", "0"] == 5
    assert second.count("replays") == 1


def test_a_store_that_is_away_is_waited_for() -> None:
    log, shelf = filled(), Shelf()
    shelf.failures = 3
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_under_another_configuration_what_was_begun_is_removed_first() -> None:
    log, shelf = filled(messages=5), Shelf()
    first = Reader(log, shelf)
    for _ in range(3):
        first.step()
    first.worker.run()
    log.leave(first.source)
    shelf.rows["kafka/t/0/first", "0", 99] = b"a row that the old rules made and the new ones do not"
    shelf.revision = "r2"
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_a_gap_is_read_again_and_then_believed() -> None:
    log, shelf = FakeLog(1), Shelf()
    for n in range(6):
        log.append(PLACE, b"%d" % n, skip=3 if n == 4 else 0)
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_messages_deleted_unread_are_counted_and_the_rest_is_taken_in() -> None:
    log, shelf = filled(), Shelf()
    log.marks[PLACE] = Mark(2, Intent("first").to_note())
    log.cut(PLACE, 10)
    reader = Reader(log, shelf)
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert reader.count("lost_offsets") == 8


def test_half_a_batch_that_was_deleted_replaces_the_whole_one() -> None:
    log, shelf = filled(), Shelf()
    first = Reader(log, shelf)
    for _ in range(3):
        first.step()
    first.worker.run()
    log.leave(first.source)
    log.cut(PLACE, 3)
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert sum(shelf.profiles.values()) == len(everything(log))


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    log, shelf = filled(), Shelf()
    Reader(log, shelf).drain(log)
    again = FakeLog(1, identity="second")
    again.marks = log.marks
    for n in range(40):
        again.append(PLACE, b"new %d" % n)
    Reader(again, shelf).drain(again)
    assert Counter(shelf.rows.values()) == everything(log) + everything(again)


def test_a_partition_that_piles_up_is_not_read_further() -> None:
    log, shelf = filled(messages=300), Shelf()
    reader = Reader(log, shelf)
    for _ in range(50):
        reader.step()
    assert reader.source.poll(0) == {}
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_the_end_commits_what_is_done() -> None:
    log, shelf = filled(messages=5), Shelf()
    reader = Reader(log, shelf)
    for _ in range(3):
        reader.step()
    reader.worker.run()
    reader.intake.close()
    assert log.marks[PLACE] == Mark(5, Intent("first").to_note())


def test_progress_is_told_up_to_the_first_message_that_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(2, messages=20), Shelf()
    reader = Reader(log, shelf)
    reader.step()
    reader.step()
    arrival = datetime.fromtimestamp(1_700_000_000, UTC)
    assert {p.place.partition: p.complete_until for p in shelf.progress} == {0: arrival, 1: arrival}
    reader.drain(log)
    assert {p.complete_until for p in shelf.progress} == {NOON}
    log.append(PLACE, b"one more")
    for _ in range(2):
        reader.step()
    later = datetime.fromtimestamp(1_700_000_000.010, UTC)
    assert {p.place.partition: p.complete_until for p in shelf.progress} == {0: later, 1: NOON}


def test_progress_does_not_fall_back_while_new_messages_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(messages=5), Shelf()
    reader = Reader(log, shelf)
    reader.step()
    reader.step()
    reader.source.pause(PLACE)
    monkeypatch.setattr(reader.source, "resume", lambda _: None)
    for n in range(5, 9):
        log.append(PLACE, b"%d" % n)
    reader.worker.run()
    reader.step()
    assert {p.complete_until for p in shelf.progress} == {datetime.fromtimestamp(1_700_000_000.004, UTC)}


def test_lag_is_the_age_of_the_first_message_that_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(2, messages=20), Shelf()
    reader = Reader(log, shelf)
    first = datetime.fromtimestamp(1_700_000_000, UTC)
    reader.at = first + timedelta(seconds=40)
    shelf.failures = 1000
    for _ in range(5):
        reader.step()
    assert [reader.lag("seconds", p) for p in (0, 1)] == [40, 40]
    reader.at = first + timedelta(seconds=90)
    assert [reader.lag("seconds", p) for p in (0, 1)] == [90, 90], "though nobody has looked meanwhile"
    shelf.failures = 0
    reader.drain(log)
    assert [reader.lag("seconds", p) for p in (0, 1)] == [0, 0]
    log.append(PLACE, b"one more")
    for _ in range(2):
        reader.step()
    assert reader.lag("seconds", 0) == pytest.approx(90 - 0.010)
    assert (reader.lag("messages", 0), reader.lag("seconds", 1)) == (1, 0)


def test_a_log_that_cannot_be_looked_at_is_not_told_to_be_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(), Shelf()
    reader = Reader(log, shelf)
    reader.drain(log)
    assert reader.lag("seconds", 0) == 0

    def away(_: object) -> Mapping[Place, int]:
        raise SourceError("nobody answers")

    monkeypatch.setattr(reader.source, "ends", away)
    reader.at = NOON + timedelta(minutes=10)
    reader.step()
    assert reader.lag("seconds", 0) == 600, "nothing is known of the last ten minutes"


def test_what_is_read_has_an_age_until_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    log, shelf = filled(messages=12), Shelf()
    reader = Reader(log, shelf)
    clock = [100.0]
    reader.intake._monotonic = lambda: clock[0]  # noqa: SLF001 - time passes
    monkeypatch.setattr("monitor.metrics.time.monotonic", lambda: clock[0])
    for _ in range(2):
        reader.step()
        clock[0] += 10
    assert reader.held() == 10, "what was polled last"
    for _ in range(2):
        reader.step()
    clock[0] += 10
    assert reader.held() == 20
    reader.worker.run()
    reader.step()  # the first five are durable; of the seven that were read with them two are not
    assert reader.held() == 20
    reader.worker.run()
    reader.step()
    assert reader.held() == 10
    reader.drain(log)
    assert reader.held() == 0
    log.append(PLACE, b"one more")
    reader.step()
    clock[0] += 3
    assert reader.held() == 3
    log.leave(reader.source)
    reader.step()
    assert reader.held() == 0, "another reads it now, or this one again"


def test_offsets_without_messages_at_the_end_are_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(messages=5), Shelf()
    log.silent[PLACE] = 2
    reader = Reader(log, shelf)
    reader.drain(log)
    assert {p.complete_until for p in shelf.progress} == {NOON}
    log.leave(reader.source)
    again = Reader(log, shelf)
    for _ in range(3):
        again.step()
    assert {p.complete_until for p in shelf.progress} == {NOON}
    log.append(PLACE, b"after the mark")
    again.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_a_batch_whose_last_messages_were_compacted_away_is_taken_in_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(messages=5), Shelf()
    log.marks[PLACE] = Mark(0, Intent("first", 4, "r1").to_note())
    log.messages[PLACE].pop()
    log.silent[PLACE] = 1
    reader = Reader(log, shelf)
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert {p.complete_until for p in shelf.progress} == {NOON}


def test_one_broken_partition_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.LONGEST_PAUSE_SECONDS", 0.0)  # it is tried again at once
    log, shelf = filled(3), Shelf()
    take, broken = shelf.take_batch, [True]

    def take_batch(lines: Sequence[bytes], origin: Origin) -> None:
        if "/t/0/" in origin.source and broken[0]:
            raise TooManyDeadLettersError("no events")
        take(lines, origin)

    monkeypatch.setattr(shelf, "take_batch", take_batch)
    reader = Reader(log, shelf)
    for _ in range(50):
        reader.step()
        reader.worker.run()
    assert Counter(shelf.rows.values()) == Counter(b"%d" % n for n in range(23) if n % 3)
    assert log.marks[PLACE].offset == 0
    broken.clear()
    broken.append(False)
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_a_log_that_gets_an_identity_is_still_the_same_log() -> None:
    log, shelf = FakeLog(1, identity=""), Shelf()
    for n in range(23):
        log.append(PLACE, b"%d" % n)
    first = Reader(log, shelf)
    for _ in range(3):
        first.step()
    first.worker.run()
    log.leave(first.source)
    log.identity = "known now"
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == everything(log)
    assert sum(shelf.profiles.values()) == 23


def test_what_follows_deleted_messages_does_not_take_the_place_of_what_is_there() -> None:
    log, shelf = filled(messages=40), Shelf()
    first = Reader(log, shelf, Limits(rows=10, size=10_000, seconds=0.0))
    for _ in range(3):
        first.step()
    first.worker.run()
    assert len(shelf.rows) == 7  # what the first poll gave
    log.leave(first.source)
    log.cut(PLACE, 12)
    Reader(log, shelf).drain(log)
    assert Counter(shelf.rows.values()) == Counter(b"%d" % n for n in [*range(7), *range(12, 40)])


def test_a_batch_that_was_larger_than_batches_may_be_now_is_formed_again() -> None:
    log, shelf = filled(messages=60), Shelf()
    log.marks[PLACE] = Mark(0, Intent("first", 50, "r1").to_note())
    Reader(log, shelf).drain(log)
    assert shelf.profiles["kafka/t/0/first", "0"] == 51
    assert Counter(shelf.rows.values()) == everything(log)


def test_what_waits_in_memory_is_bounded_over_all_partitions() -> None:
    log, shelf = FakeLog(40), Shelf()
    for place in log.messages:
        for _ in range(20):
            log.append(place, b"x" * 100)
    reader = Reader(log, shelf, Limits(rows=10_000, size=1_000, seconds=0.0))
    for _ in range(30):
        reader.step()
    held = sum(len(messages) * 100 for messages in reader.source.poll(0).values())
    assert held == 0
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_when_memory_is_short_the_next_batch_still_becomes_a_whole_one() -> None:
    log, shelf = FakeLog(40), Shelf()
    for place in log.messages:
        for _ in range(20):
            log.append(place, b"x" * 100)
    reader = Reader(log, shelf, Limits(rows=10_000, size=1_000, seconds=100.0))
    for _ in range(30):
        reader.step()
    reader.worker.run()
    assert set(shelf.profiles.values()) == {10}


def test_a_partition_that_waits_for_its_turn_is_not_taken_for_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = FakeLog(3), Shelf()
    for place in log.messages:
        for _ in range(30):
            log.append(place, b"x" * 100)
    reader = Reader(log, shelf, Limits(rows=10_000, size=1_000, seconds=0.0))
    for minute in range(10):
        reader.intake._monotonic = lambda minute=minute: minute * 60.0  # type: ignore[misc]  # noqa: SLF001 - time passes
        reader.step()
    reader.drain(log)
    assert Counter(shelf.rows.values()) == everything(log)


def test_a_client_that_has_lost_its_way_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(), Shelf()
    reader = Reader(log, shelf)
    reader.step()
    monkeypatch.setattr(reader.source, "poll", lambda _: {})
    reader.step()
    reader.intake._monotonic = lambda: 100.0  # noqa: SLF001 - time passes
    with pytest.raises(SourceError, match="t/0 gives no messages although it has some"):
        reader.step()


def test_whatever_a_source_does_it_is_opened_anew() -> None:
    log, shelf = filled(), Shelf()
    failures = [SourceError("not there"), ValueError("a bug"), None, None]
    stopped = threading.Event()

    class Odd(FakeSource):
        def poll(self, seconds: float) -> Mapping[Place, Sequence[Message]]:
            if failures:
                raise RuntimeError("another bug")
            if log.marks and log.marks[PLACE].offset == log.end(PLACE):
                stopped.set()
            return super().poll(seconds)

        def close(self) -> None:
            super().close()
            if failures:
                raise SourceError("left in disorder")

    def open_source() -> Odd:
        if failures and (failure := failures.pop(0)) is not None:
            raise failure
        source = Odd(log)
        log.members.append(source)
        log.rebalance()
        return source

    run_intake(open_source, shelf, Metrics(), stopped, SMALL)
    assert Counter(shelf.rows.values()) == everything(log)


def test_a_partition_of_which_nothing_was_read_yet_holds_judging_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.PROGRESS_SECONDS", 0.0)
    log, shelf = filled(), Shelf()
    reader = Reader(log, shelf)
    reader.step()
    reader.source.pause(PLACE)
    reader.step()
    assert {p.complete_until for p in shelf.progress} == {datetime.fromtimestamp(0, UTC)}


def test_a_batch_is_closed_by_rows_size_or_age() -> None:
    limits = Limits(rows=4, size=100, seconds=2.0)
    buffer = Buffer(PLACE, 0)
    buffer.add([Message(0, 0, [b"a", b"b"], 10)], now=5.0)
    assert buffer.next_batch(limits, now=6.9) is None
    assert _range(buffer.next_batch(limits, now=7.0)) == (0, 0)
    buffer.add([Message(1, 0, [b"c"] * 3, 10)], now=7.0)
    assert _range(buffer.next_batch(limits, now=5.0)) == (0, 0)
    buffer.drop(Batch(PLACE, 0, 0, []), now=7.0)
    buffer.add([Message(2, 0, [b"d"], 99)], now=7.0)
    assert _range(buffer.next_batch(limits, now=7.0)) == (1, 1)
    buffer.drop(Batch(PLACE, 1, 1, []), now=7.0)
    buffer.add([Message(3, 0, [b"e"], 1000)], now=7.0)
    assert _range(buffer.next_batch(limits, now=7.0)) == (2, 2)
    buffer.drop(Batch(PLACE, 2, 2, []), now=7.0)
    assert _range(buffer.next_batch(limits, now=7.0)) == (3, 3)


def _range(batch: Batch | None) -> tuple[int, int] | None:
    return (batch.first, batch.last) if batch else None


def torture(seed: int, *, deaf_to_seek: bool = False) -> tuple[Counter[bytes], Counter[bytes], int]:
    """Members come, stall, lose their partitions unseen, die at any step; the store fails now and then."""
    chance = random.Random(seed)
    log, shelf = FakeLog(3), Shelf()

    def another() -> Reader:
        return Reader(log, shelf, Limits(chance.randint(2, 9), 10_000, 0.0), deaf_to_seek=deaf_to_seek)

    readers = [another(), another()]
    for n in range(400):
        silent = chance.randrange(3)
        log.silent[Place("t", silent)] += chance.random() < 0.1
        log.append(Place("t", chance.randrange(3)), *[b"%d-%d" % (n, i) for i in range(chance.choice([1, 1, 3]))])
        for _ in range(chance.randrange(3)):
            reader = chance.choice(readers)
            reader.step()
            if chance.random() < 0.5:
                reader.worker.run()
        disturb(chance, log, shelf, readers, another)
    for _ in range(400):
        for reader in readers:
            reader.step()
            reader.worker.run()
    return everything(log), Counter(shelf.rows.values()), sum(shelf.profiles.values())


def disturb(
    chance: random.Random, log: FakeLog, shelf: Shelf, readers: list[Reader], another: Callable[[], Reader]
) -> None:
    if chance.random() < 0.03:
        dead = readers.pop(chance.randrange(len(readers)))
        log.leave(dead.source)
        if chance.random() < 0.5:
            dead.worker.run()  # its last insert still arrives, late
        readers.append(another())
    if chance.random() < 0.03:
        log.leave(chance.choice(readers).source)  # for being silent; it does not know
    if chance.random() < 0.03:
        log.rebalance()
    if chance.random() < 0.05:
        shelf.failures = 2


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_every_line_is_there_once(seed: int) -> None:
    sent, rows, profiled = torture(seed)
    assert rows == sent
    assert profiled == sent.total()


def test_without_seeking_after_a_rebalance_lines_are_lost_or_doubled() -> None:
    """The torture above can tell: the fault that it is there for makes it fail."""
    wrong = 0
    for seed in range(5):
        sent, rows, _ = torture(seed, deaf_to_seek=True)
        wrong += rows != sent
    assert wrong


def test_without_intents_lines_are_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.intake.read_intent", lambda _: None)
    wrong = 0
    for seed in range(5):
        sent, rows, _ = torture(seed)
        wrong += rows != sent
    assert wrong
