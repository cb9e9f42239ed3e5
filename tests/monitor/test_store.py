"""What every store must do. Each test runs on the embedded engine and on a server."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from monitor.store import Parameter, Store, StoreError, migrate, migrations
from monitor.store.literals import literal, quoted, render

NOW = datetime(2026, 3, 1, 12, 30, 15, 123000, tzinfo=UTC)
MOMENT = pl.Datetime("ms", "UTC")
ELSEWHERE = timezone(timedelta(hours=-11, minutes=-30))
on_one_store = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TYPES: dict[str, tuple[pl.DataType, list[Any]]] = {
    "Bool": (pl.Boolean(), [True, False]),
    "UInt8": (pl.UInt8(), [0, 255]),
    "UInt16": (pl.UInt16(), [0, 65535]),
    "UInt32": (pl.UInt32(), [0, 2**32 - 1]),
    "UInt64": (pl.UInt64(), [0, 2**64 - 1]),
    "Int64": (pl.Int64(), [-(2**63), 2**63 - 1]),
    "Float64": (pl.Float64(), [0.1, math.nan]),
    "Nullable(Float64)": (pl.Float64(), [None, -math.inf]),
    "Nullable(String)": (pl.String(), ["", None]),
    "String": (pl.String(), ["it's \\ `é😀\0\n\t", ""]),
    "LowCardinality(String)": (pl.String(), ["a", ""]),
    "LowCardinality(Nullable(String))": (pl.String(), [None, ""]),
    "DateTime64(3, 'UTC')": (MOMENT, [NOW, datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)]),
    "Nullable(DateTime64(3, 'UTC'))": (MOMENT, [None, NOW]),
    "Array(String)": (pl.List(pl.String), [[], ["a", ""]]),
    "Array(Float64)": (pl.List(pl.Float64), [[1.5, math.nan], []]),
    "Array(Int64)": (pl.List(pl.Int64), [[-(2**63), 2**63 - 1], []]),
    "Array(UInt32)": (pl.List(pl.UInt32), [[1, 2**32 - 1], []]),
    "Array(UInt64)": (pl.List(pl.UInt64), [[2**64 - 1], []]),
    "Array(DateTime64(3, 'UTC'))": (pl.List(MOMENT), [[NOW], []]),
    "Array(LowCardinality(String))": (pl.List(pl.String), [["a", "a", "b"], []]),
    "Array(LowCardinality(Nullable(String)))": (pl.List(pl.String), [["a", None, ""], [None]]),
}


def dead_letters(rows: int, batch: str = "b", raw: bytes = b"\xff\x00'`\\") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "source": "t",
            "batch": batch,
            "row": pl.int_range(rows, dtype=pl.UInt32, eager=True),
            "received": NOW,
            "reason": "r",
            "detail": "",
            "raw": raw,
        }
    )


def count(store: Store, table: str = "dead_letters FINAL") -> int:
    return int(store.select(f"SELECT count() AS n FROM {table}")["n"][0])  # noqa: S608 - a name from a test


def test_what_is_written_is_read_back_to_the_byte_and_millisecond(any_store: Store) -> None:
    any_store.insert("dead_letters", dead_letters(1))
    row = any_store.select("SELECT received, CAST(hex(raw), 'String') AS hexed FROM dead_letters").to_dicts()[0]
    assert row == {"received": NOW, "hexed": "FF0027605C"}


def test_bytes_that_are_no_text_are_shown_as_such(any_store: Store) -> None:
    any_store.insert("dead_letters", dead_letters(1, raw=b"a\xffb"))
    any_store.insert("dead_letters", dead_letters(1, "c", raw="é".encode()))
    rows = any_store.select("SELECT raw, [raw] AS raws, tuple(raw) AS pair FROM dead_letters FINAL ORDER BY batch")
    shown = ["a\N{REPLACEMENT CHARACTER}b", "é"]
    assert rows.to_dicts() == [{"raw": text, "raws": [text], "pair": {"1": text}} for text in shown]


def test_writing_again_changes_nothing(any_store: Store) -> None:
    for _ in range(3):
        any_store.insert("dead_letters", dead_letters(50))
    assert count(any_store) == 50


def test_two_identical_batches_of_different_origin_both_stay(any_store: Store) -> None:
    any_store.insert("dead_letters", dead_letters(5, "one"))
    any_store.insert("dead_letters", dead_letters(5, "two"))
    assert count(any_store) == 10


def test_writing_no_rows_is_nothing(any_store: Store) -> None:
    any_store.insert("dead_letters", dead_letters(0))
    assert count(any_store) == 0


def test_every_type_is_read_as_it_was_written(any_store: Store) -> None:
    columns = ", ".join(f"{quoted(kind)} {kind}" for kind in TYPES)
    any_store.execute(f"CREATE TABLE kinds (row UInt32, {columns}) ENGINE = MergeTree ORDER BY row")
    rows = pl.DataFrame(
        [pl.Series("row", [0, 1], pl.UInt32), *(pl.Series(n, values, dtype) for n, (dtype, values) in TYPES.items())]
    )
    any_store.insert("kinds", rows)
    assert_frame_equal(any_store.select("SELECT * FROM kinds ORDER BY row"), rows)
    assert_frame_equal(any_store.select("SELECT * FROM kinds WHERE row > 5"), rows.clear())


def test_the_types_of_all_tables_are_among_those_that_are_tested(any_store: Store) -> None:
    used = any_store.select("SELECT DISTINCT type FROM system.columns WHERE database = currentDatabase()")["type"]
    assert set(used) <= set(TYPES)


def test_tuples_become_structs(any_store: Store) -> None:
    rows = any_store.select(
        "SELECT (1, 'a', [NULL, 'b']::Array(LowCardinality(Nullable(String)))) AS plain, "
        "CAST(([1], nan), 'Tuple(`the cells` Array(UInt32), n Float64)') AS named, [(1, 'x')] AS many"
    )
    assert rows.schema == {
        "plain": pl.Struct({"1": pl.UInt8, "2": pl.String, "3": pl.List(pl.String)}),
        "named": pl.Struct({"the cells": pl.List(pl.UInt32), "n": pl.Float64}),
        "many": pl.List(pl.Struct({"1": pl.UInt8, "2": pl.String})),
    }
    assert rows["plain"].to_list() == [{"1": 1, "2": "a", "3": [None, "b"]}]
    assert rows["many"].to_list() == [[{"1": 1, "2": "x"}]]
    empty = any_store.select("SELECT (1, 'a') AS plain, [] AS nothing, NULL AS null WHERE 0")
    plain = pl.Struct({"1": pl.UInt8, "2": pl.String})
    assert empty.schema == {"plain": plain, "nothing": pl.List(pl.Null), "null": pl.Null}


def test_times_are_cut_to_milliseconds(any_store: Store) -> None:
    any_store.insert("dead_letters", dead_letters(1).with_columns(received=NOW + timedelta(microseconds=999)))
    assert any_store.select("SELECT received FROM dead_letters")["received"].to_list() == [NOW]


def test_a_missing_value_is_the_default_where_there_is_no_null(any_store: Store) -> None:
    rows = dead_letters(2).with_columns(detail=pl.Series(["x", None]), received=pl.Series([NOW, None], dtype=MOMENT))
    any_store.insert("dead_letters", rows)
    got = any_store.select("SELECT detail, received FROM dead_letters ORDER BY row").rows()
    assert got == [("x", NOW), ("", datetime(1970, 1, 1, tzinfo=UTC))]


def test_rows_of_many_months_are_written_at_once(any_store: Store) -> None:
    months = [datetime(2000 + i // 12, 1 + i % 12, 1, tzinfo=UTC) for i in range(150)]
    any_store.insert("dead_letters", dead_letters(150).with_columns(received=pl.Series(months)))
    assert count(any_store) == 150


def test_many_rows_stay_one_block(any_store: Store) -> None:
    any_store.execute("CREATE TABLE blocks (n UInt32, block UInt32 DEFAULT blockNumber()) ENGINE = Log")
    any_store.insert("blocks", pl.DataFrame({"n": pl.int_range(200_000, dtype=pl.UInt32, eager=True)}))
    assert any_store.select("SELECT count() AS n, uniqExact(block) AS blocks FROM blocks").rows() == [(200_000, 1)]


@settings(on_one_store, max_examples=30)
@given(st.lists(st.tuples(st.text(), st.lists(st.none() | st.text(max_size=3)), st.none() | st.text()), min_size=1))
def test_any_text_that_is_written_comes_back(any_store: Store, rows: list[tuple[str, list[str | None], str]]) -> None:
    any_store.execute(
        "CREATE OR REPLACE TABLE texts (row UInt32, plain String, many Array(LowCardinality(Nullable(String))), "
        "maybe LowCardinality(Nullable(String))) ENGINE = Memory"
    )
    schema = {"plain": pl.String(), "many": pl.List(pl.String), "maybe": pl.String()}
    frame = pl.DataFrame(rows, schema, orient="row").with_row_index("row")
    any_store.insert("texts", frame)
    assert_frame_equal(any_store.select("SELECT * FROM texts ORDER BY row"), frame)


# Parameters are values and never SQL.


def echoed(store: Store, kind: str, value: Parameter) -> Any:
    frame = store.select(f"SELECT {{value:{kind}}} AS value, {literal('{value:String}')} AS untouched", value=value)
    assert frame["untouched"].to_list() == ["{value:String}"]
    return frame["value"][0]


@on_one_store
@given(st.text())
@example("x' OR 1=1 -- \\ ` \n é")
@example("{value:String} {other:Int64} ' /* */ \\' \\0 \0 \b \r")
def test_any_text_comes_back_to_the_character(any_store: Store, text: str) -> None:
    assert echoed(any_store, "String", text) == text


@on_one_store
@given(st.text(min_size=1))
@example("`\\")
def test_any_name_can_be_that_of_a_column(any_store: Store, name: str) -> None:
    assert any_store.select(f"SELECT 1 AS {quoted(name)}").columns == [name]


@on_one_store
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
@example(-(2**63), 0)
@example(2**63 - 1, 2**64 - 1)
def test_any_integer_comes_back(any_store: Store, signed: int, unsigned: int) -> None:
    assert echoed(any_store, "Int64", signed) == signed
    assert echoed(any_store, "UInt64", unsigned) == unsigned


@on_one_store
@given(st.floats())
@example(-0.0)
@example(5e-324)
@example(1.7976931348623157e308)
def test_any_number_comes_back(any_store: Store, number: float) -> None:
    got = echoed(any_store, "Float64", number)
    assert math.isnan(got) if math.isnan(number) else (got, math.copysign(1, got)) == (number, math.copysign(1, number))


@on_one_store
@given(st.datetimes(datetime(1700, 1, 1), datetime(2240, 1, 1), timezones=st.just(ELSEWHERE)))  # noqa: DTZ001 - bounds
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC))
def test_any_time_comes_back_to_the_millisecond(any_store: Store, time: datetime) -> None:
    got = echoed(any_store, "DateTime64(3, 'UTC')", time)
    assert got == time.replace(microsecond=time.microsecond // 1000 * 1000)


@pytest.mark.parametrize("time", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_time_outside_the_range_of_the_store_can_be_compared_with(any_store: Store, time: datetime) -> None:
    any_store.insert("dead_letters", dead_letters(1))
    rows = any_store.select("SELECT received > {t:DateTime64(3, 'UTC')} AS later FROM dead_letters", t=time)
    assert rows["later"].to_list() == [time < NOW]


def test_a_parameter_that_is_not_named_is_not_looked_at(any_store: Store) -> None:
    assert any_store.select("SELECT {a:Int64} AS a", a=1, other="x")["a"].to_list() == [1]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", 5),
        ("Int64", 2**63),
        ("Int64", True),
        ("Int64", "5"),
        ("UInt64", -1),
        ("Float64", "nan"),
        ("DateTime64(3, 'UTC')", datetime(2026, 3, 1)),  # noqa: DTZ001 - that it has no zone is the point
        ("DateTime64(3, 'UTC')", 5),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(kind: str, value: Parameter) -> None:
    with pytest.raises(ValueError, match=re.escape(f"which is not a value of type {kind}")):
        render(f"SELECT {{value:{kind}}}", {"value": value})


def test_a_placeholder_without_a_value_or_with_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("needs a value for {missing:String}")):
        render("SELECT {missing:String}", {"other": "x"})
    with pytest.raises(ValueError, match="has the type Array"):
        render("SELECT {a:Array(String)}", {"a": "x"})


# Failures.


def test_a_refused_statement_says_what_and_why(any_store: Store) -> None:
    with pytest.raises(StoreError, match=r"SELECT \* FROM no_such_table.*no_such_table"):
        any_store.select("SELECT * FROM no_such_table")
    with pytest.raises(StoreError, match=r"insert into dead_letters.*nonsense"):
        any_store.insert("dead_letters", pl.DataFrame({"nonsense": [1]}))
    with pytest.raises(StoreError, match="DROP TABLE no_such_table"):
        any_store.execute("DROP TABLE no_such_table")


def test_values_that_do_not_fit_are_refused(any_store: Store) -> None:
    with pytest.raises(StoreError, match="insert into dead_letters"):
        any_store.insert("dead_letters", dead_letters(1).with_columns(received=pl.Series([["no time"]])))
    assert count(any_store) == 0


def test_a_store_goes_on_after_a_failure(any_store: Store) -> None:
    for _ in range(3):
        with pytest.raises(StoreError):
            any_store.select("SELECT throwIf(number = 100000, 'in the middle') FROM numbers(200000)")
        assert any_store.select("SELECT 1 AS one").rows() == [(1,)]


def test_an_insert_with_one_bad_row_writes_nothing(any_store: Store) -> None:
    any_store.execute(
        "CREATE TABLE strict (n UInt32, CONSTRAINT small CHECK n < 1000) "
        "ENGINE = MergeTree PARTITION BY n % 2 ORDER BY n"
    )
    with pytest.raises(StoreError, match="small"):
        any_store.insert("strict", pl.DataFrame({"n": pl.int_range(1001, dtype=pl.UInt32, eager=True)}))
    assert count(any_store, "strict") == 0


# Migrations.


def test_migrating_again_does_nothing(any_store: Store) -> None:
    assert migrate(any_store) == []
    numbers = [number for number, _, _ in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_migrating_many_times_at_once_is_like_once(any_store: Store) -> None:
    for table in ("migrations", "findings", "health"):
        any_store.execute(f"DROP TABLE {table}")
    at_once(6, lambda _: migrate(any_store))
    recorded = any_store.select("SELECT number FROM migrations FINAL ORDER BY number")["number"].to_list()
    assert recorded == [number for number, _, _ in migrations()]


# Threads.


def at_once(threads: int, work: Callable[[int], object]) -> None:
    """Do something in several threads that start together; fails with what the first one raised."""
    together = threading.Barrier(threads)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        together.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_write_and_read_at_once(any_store: Store) -> None:
    def work(number: int) -> None:
        for i in range(5):
            any_store.insert("dead_letters", dead_letters(10, f"{number}-{i}"))
            any_store.select("SELECT count() FROM dead_letters")

    at_once(6, work)
    assert count(any_store) == 300
