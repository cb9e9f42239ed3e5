"""Hours added up once: whatever is written, and whenever hours are made, what is read is what the batches hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from monitor.fleet import served
from monitor.folding import fold, mark, remove_old_sums, remove_sealed, seal, span
from monitor.store import Store

HOUR = timedelta(hours=1)
START = NOON - 4 * HOUR
PLACE = {"environment": "production", "model": "m"}
ONE = ("production", "m")


def write(store: Store, batch: str, minutes: Sequence[int], counts: Sequence[int], version: str = "1") -> None:
    """A batch of one server that has some events in some minutes."""
    rows = pl.DataFrame(
        {
            "minute": [START + timedelta(minutes=m) for m in minutes],
            "n": pl.Series(counts, dtype=pl.UInt64),
            "failed": pl.Series([0] * len(counts), dtype=pl.UInt64),
            "undeclared": pl.Series([1] * len(counts), dtype=pl.UInt64),
            "cells": pl.Series([[m % 5, 7] for m in minutes], dtype=pl.List(pl.UInt32)),
            "counts": pl.Series([[c, 2 * c] for c in counts], dtype=pl.List(pl.UInt32)),
        }
    ).with_columns(
        **{name: pl.lit(value) for name, value in PLACE.items()},
        version=pl.lit(version),
        server=pl.lit("pod-1"),
        role=pl.lit("live"),
        segment=pl.lit(""),
        weight=pl.lit(1.0),
        layout_id=pl.lit("l"),
        source=pl.lit("s"),
        batch=pl.lit(batch),
    )
    store.insert("profile_batches", rows)
    mark(store, rows)


def read(store: Store, start: datetime = START, end: datetime = NOON) -> pl.DataFrame:
    parameters = span(store, *ONE, start, end).parameters
    return store.query("window_profiles", **PLACE, layout_id="l", **parameters).drop("filled")


def read_batches(store: Store, start: datetime = START, end: datetime = NOON) -> pl.DataFrame:
    none_folded = replace(span(store, *ONE, start, end), hours=[], generations=[], bases=[], seals=[])
    return store.query("window_profiles", **PLACE, layout_id="l", **none_folded.parameters).drop("filled")


def test_folded_hours_are_read_like_their_batches(any_store: Store) -> None:
    write(any_store, "a", [0, 59, 60, 61, 119, 200], [1, 2, 3, 4, 5, 6])
    write(any_store, "b", [0, 61], [10, 20], version="2")
    expected = read_batches(any_store)
    assert fold(any_store, *ONE, START, NOON, NOON) == 3
    any_store.execute("TRUNCATE TABLE profile_batches")  # so that nothing can come from there
    assert_frame_equal(read(any_store), expected)
    times = served(any_store, *ONE, START, NOON).select("version", "rows", "first_seen", "last_seen").rows()
    assert times == [
        ("1", 21, START, START + timedelta(minutes=200)),
        ("2", 30, START, START + timedelta(minutes=61)),
    ]


def test_an_hour_that_holds_is_not_made_again(any_store: Store) -> None:
    write(any_store, "a", [0, 60], [1, 1])
    assert fold(any_store, *ONE, START, NOON, NOON) == 2
    assert fold(any_store, *ONE, START, NOON, NOON) == 0
    write(any_store, "late", [70], [5])
    assert read(any_store)["rows"].to_list() == [7]
    assert fold(any_store, *ONE, START, NOON, NOON) == 1
    assert read(any_store)["rows"].to_list() == [7]


def test_only_whole_hours_are_taken_from_sums(any_store: Store) -> None:
    write(any_store, "a", [10, 50, 70, 130], [1, 2, 4, 8])
    fold(any_store, *ONE, START, NOON, NOON)
    half_past = timedelta(minutes=30)
    assert read(any_store, START + half_past, START + 2 * HOUR + half_past)["rows"].to_list() == [14]
    assert fold(any_store, *ONE, START + half_past, START + HOUR, NOON) == 0


def test_what_is_written_while_an_hour_is_made_is_not_lost(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(any_store, "a", [0], [1])
    query = any_store.query
    late = iter(["b"])

    def slow_query(name: str, **parameters: Any) -> pl.DataFrame:
        rows = query(name, **parameters)
        for batch in late if name == "hour_profiles" else ():
            write(any_store, batch, [1], [5])
        return rows

    monkeypatch.setattr(any_store, "query", slow_query)
    fold(any_store, *ONE, START, NOON, NOON)
    assert read(any_store)["rows"].to_list() == [6]


def test_a_batch_that_is_removed_takes_its_hours_down(make_service: ServiceMaker, clock: StillClock) -> None:
    from monitor.ingest import Origin

    clock.at = NOON
    service = make_service()
    lines = ndjson([prediction(n, NOON - HOUR) for n in range(10)]).split(b"\n")
    origin = Origin("kafka/t/0/x", "0", NOON)
    service.take_batch(lines, origin)
    assert fold(service.store, "production", "m", START, NOON, NOON) == 1
    service.forget_batch(origin)
    assert served(service.store, "production", "m", START, NOON).is_empty()
    service.take_batch(lines[:4], origin)
    assert served(service.store, "production", "m", START, NOON)["rows"].sum() == 4


def test_judging_a_window_makes_its_hours(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON - timedelta(minutes=1)
    service = make_service()
    service.take(ndjson([prediction(n, NOON - timedelta(minutes=n % 50 + 5)) for n in range(300)]), "http")
    clock.at = NOON + timedelta(minutes=10)
    service.judge_due(clock.at)
    assert span(service.store, "production", "m", NOON - HOUR, NOON).hours == [NOON - HOUR]


HOURS = [START + n * HOUR for n in range(4)]
STILL = timedelta(days=3)


def keep_sums_only(store: Store, at: datetime, hours: Sequence[datetime] = HOURS) -> int:
    """Two runs of what is done every hour, three days after the hours were added up."""
    sealed = seal(store, *ONE, hours, at - STILL, at)
    remove_sealed(store, hours, at)
    return sealed


def batches_left(store: Store) -> list[str]:
    return store.select("SELECT DISTINCT batch FROM profile_batches ORDER BY batch")["batch"].to_list()


def test_sums_that_are_sealed_stand_for_their_batches(any_store: Store) -> None:
    write(any_store, "a", [0, 59, 60, 61, 119, 200], [1, 2, 3, 4, 5, 6])
    write(any_store, "b", [0, 61], [10, 20], version="2")
    expected = read(any_store)
    fold(any_store, *ONE, START, NOON, NOON)
    assert keep_sums_only(any_store, NOON + STILL - HOUR) == 0, "not long enough still"
    assert keep_sums_only(any_store, NOON + STILL) == 3
    assert batches_left(any_store) == []
    assert_frame_equal(read(any_store), expected)
    write(any_store, "late", [60], [100])
    more = expected.with_columns(pl.col("rows") + pl.when(pl.col("version") == "1").then(100).otherwise(0))
    assert read(any_store).select("version", "rows").rows() == more.select("version", "rows").rows()
    assert fold(any_store, *ONE, START, NOON, NOON + STILL) == 1
    assert read(any_store).select("version", "rows").rows() == more.select("version", "rows").rows()
    assert batches_left(any_store) == ["late"]
    assert keep_sums_only(any_store, NOON + 2 * STILL) == 1
    assert batches_left(any_store) == []
    assert read(any_store).select("version", "rows").rows() == more.select("version", "rows").rows()


def test_a_batch_of_a_sealed_sum_that_comes_again_counts_once(any_store: Store) -> None:
    write(any_store, "a", [0, 61], [1, 2])
    fold(any_store, *ONE, START, NOON, NOON)
    keep_sums_only(any_store, NOON + STILL)
    write(any_store, "a", [0, 61], [1, 2])
    assert read(any_store)["rows"].sum() == 3
    fold(any_store, *ONE, START, NOON, NOON + STILL)
    assert read(any_store)["rows"].sum() == 3
    keep_sums_only(any_store, NOON + 2 * STILL)
    assert batches_left(any_store) == []
    assert read(any_store)["rows"].sum() == 3


def test_a_batch_that_comes_in_while_an_hour_is_sealed_is_not_lost(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are there and its mark is not when the batches are listed."""
    write(any_store, "a", [0], [1])
    fold(any_store, *ONE, START, NOON, NOON)
    query = any_store.query
    late = iter(["b"])

    def slow_query(name: str, **parameters: Any) -> pl.DataFrame:
        for batch in late if name == "batches_to_seal" else ():
            write(any_store, batch, [1], [5])
        return query(name, **parameters)

    monkeypatch.setattr(any_store, "query", slow_query)
    assert keep_sums_only(any_store, NOON + STILL) == 0
    assert read(any_store)["rows"].to_list() == [6]
    fold(any_store, *ONE, START, NOON, NOON + STILL)
    assert keep_sums_only(any_store, NOON + 2 * STILL) == 1
    assert read(any_store)["rows"].to_list() == [6]


def test_whoever_reads_while_an_hour_is_sealed_reads_all_of_it(any_store: Store) -> None:
    write(any_store, "a", [0], [1])
    fold(any_store, *ONE, START, NOON, NOON)
    write(any_store, "b", [1], [5])
    begun = span(any_store, *ONE, START, NOON).parameters
    fold(any_store, *ONE, START, NOON, NOON + HOUR)
    assert seal(any_store, *ONE, HOURS, NOON + HOUR, NOON + HOUR) == 1
    assert any_store.query("window_profiles", **PLACE, layout_id="l", **begun)["rows"].to_list() == [6]


def test_sums_that_others_took_the_place_of_are_removed(any_store: Store) -> None:
    for number in range(4):
        write(any_store, f"b{number}", [0, 60], [1, 2])
        fold(any_store, *ONE, START, NOON, NOON + number * HOUR)
    expected = read(any_store)
    generations = "SELECT uniqExact(generation) AS n FROM profile_hours"
    assert any_store.select(generations)["n"].to_list() == [8]
    assert remove_old_sums(any_store, NOON + 3 * HOUR + timedelta(minutes=59)) == 6
    assert any_store.select(generations)["n"].to_list() == [2]
    assert_frame_equal(read(any_store), expected)
    keep_sums_only(any_store, NOON + STILL + 3 * HOUR)
    write(any_store, "late", [0], [5])
    fold(any_store, *ONE, START, NOON, NOON + STILL + 4 * HOUR)
    assert remove_old_sums(any_store, NOON + STILL + 6 * HOUR) == 0, "the sealed sum is what the next one begins with"
    assert read(any_store)["rows"].to_list() == [17]


def test_a_sum_that_is_being_made_is_not_taken_for_an_old_one(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(any_store, "a", [0], [1])
    fold(any_store, *ONE, START, NOON, NOON)
    write(any_store, "b", [0], [1])
    insert = any_store.insert

    def slow_insert(table: str, rows: pl.DataFrame) -> None:
        if table == "profile_folds":
            remove_old_sums(any_store, NOON + HOUR)
        insert(table, rows)

    monkeypatch.setattr(any_store, "insert", slow_insert)
    fold(any_store, *ONE, START, NOON, NOON + HOUR)
    assert read(any_store)["rows"].to_list() == [2]


BATCHES = {"a": [3, 70, 239], "b": [4, 59, 60], "c": [119, 120], "d": [5]}
"""A batch comes again as it came first, also after its profiles were removed."""
deeds = st.lists(st.sampled_from([*BATCHES, "fold", "seal", "remove", "clean"]), min_size=1, max_size=14)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds)
def test_in_whatever_order_sums_are_made_and_batches_removed_each_batch_counts_once(store: Store, done: Any) -> None:
    for table in (
        "profile_batches",
        "profile_hours",
        "profile_folds",
        "profile_marks",
        "profile_seals",
        "sealed_batches",
    ):
        store.execute(f"TRUNCATE TABLE {table}")
    here: set[str] = set()
    for number, deed in enumerate(done):
        now = NOON + number * HOUR
        if deed in BATCHES:
            here.add(deed)
            write(store, deed, BATCHES[deed], BATCHES[deed])
        elif deed == "fold":
            fold(store, *ONE, START, NOON, now)
        elif deed == "seal":
            seal(store, *ONE, HOURS, now, now)
        elif deed == "remove":
            remove_sealed(store, HOURS, now - timedelta(minutes=1))
        else:
            remove_old_sums(store, now)
        assert read(store)["rows"].sum() == sum(sum(BATCHES[b]) for b in here)
        for start in HOURS if number == len(done) - 1 else HOURS[number % 4 :][:1]:  # each step another one of them
            minute = (start - START) // timedelta(minutes=1)
            expected = sum(m for b in here for m in BATCHES[b] if minute <= m < minute + 60)
            assert read(store, start, start + HOUR)["rows"].sum() == expected


writes = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 239), min_size=1, max_size=4, unique=True)), max_size=4
)
steps = st.lists(st.one_of(writes.map(lambda w: ("write", w)), st.just(("fold", []))), min_size=1, max_size=5)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_whatever_the_order_of_writing_and_folding_nothing_is_lost_or_twice(store: Store, steps: Any) -> None:
    for table in ("profile_batches", "profile_hours", "profile_folds", "profile_marks"):
        store.execute(f"TRUNCATE TABLE {table}")
    for kind, batches in steps:
        if kind == "fold":
            fold(store, *ONE, START, NOON, NOON)
        for number, (batch, minutes) in enumerate(batches):
            write(store, batch, minutes, [number + 1] * len(minutes))  # the same batch again replaces its rows
        assert_frame_equal(read(store), read_batches(store))
