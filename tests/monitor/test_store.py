"""What every engine must do. The embedded one is held to it here."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import chdb
import polars as pl
import pytest

from monitor.store import StoreBusyError, StoreError, migrate, migrations
from monitor.store.embedded import EmbeddedStore

NOW = datetime(2026, 3, 1, 12, 30, 15, 123000, tzinfo=UTC)


def dead_letters(rows: int, batch: str = "b") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "source": "t",
            "batch": batch,
            "row": pl.int_range(rows, dtype=pl.UInt32, eager=True),
            "received": NOW,
            "reason": "r",
            "detail": "",
            "raw": b"\xff\x00'`\\",
        }
    )


def test_what_is_written_is_read_back_to_the_byte_and_millisecond(store: EmbeddedStore) -> None:
    store.insert("dead_letters", dead_letters(1))
    row = store.select("SELECT received, CAST(hex(raw), 'String') AS hexed FROM dead_letters").to_dicts()[0]
    assert row == {"received": NOW, "hexed": "FF0027605C"}


def test_writing_again_changes_nothing(store: EmbeddedStore) -> None:
    for _ in range(3):
        store.insert("dead_letters", dead_letters(50))
    assert store.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [50]


def test_two_identical_batches_of_different_origin_both_stay(store: EmbeddedStore) -> None:
    store.insert("dead_letters", dead_letters(5, "one"))
    store.insert("dead_letters", dead_letters(5, "two"))
    assert store.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [10]


def test_parameters_are_values_and_never_sql(store: EmbeddedStore) -> None:
    hostile = "x' OR 1=1 -- \\ ` \n é"
    got = store.select(
        "SELECT {text:String} AS text, {n:Int64} AS n, {t:DateTime64(3, 'UTC')} AS t", text=hostile, n=-5, t=NOW
    )
    assert got.to_dicts() == [{"text": hostile, "n": -5, "t": NOW}]


def test_a_refused_statement_says_what_and_why(store: EmbeddedStore) -> None:
    with pytest.raises(StoreError, match="no_such_table"):
        store.select("SELECT * FROM no_such_table")
    with pytest.raises(StoreError, match="insert into dead_letters"):
        store.insert("dead_letters", pl.DataFrame({"nonsense": [1]}))


def test_migrating_again_does_nothing(store: EmbeddedStore) -> None:
    assert migrate(store) == []
    numbers = [number for number, _, _ in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_data_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "s") as store:
        migrate(store)
        store.insert("dead_letters", dead_letters(3))
    with EmbeddedStore(tmp_path / "s") as store:
        assert store.select("SELECT count() AS n FROM dead_letters")["n"].to_list() == [3]


@pytest.mark.usefixtures("store")
def test_a_folder_in_use_is_refused_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib, monitor.store.embedded as e; e.EmbeddedStore(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert StoreBusyError.__name__ in done.stderr
    assert "is in use by another process" in done.stderr


def test_threads_that_come_and_go_use_the_same_handles(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(chdb, "connect", made.append)
    for _ in range(20):
        thread = threading.Thread(target=store.select, args=("SELECT 1",))
        thread.start()
        thread.join()
    assert made == []


def test_threads_write_and_read_at_once(store: EmbeddedStore) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for i in range(5):
                store.insert("dead_letters", dead_letters(10, f"{number}-{i}"))
                store.select("SELECT count() FROM dead_letters")
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert store.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [300]
