"""What only the embedded store does: it owns a folder."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import chdb
import polars as pl
import pytest

from monitor.config import StoreSpec
from monitor.store import StoreBusyError, migrate
from monitor.store.embedded import EmbeddedStore
from monitor.store.opening import open_store


def test_it_is_the_store_when_no_server_is_named(tmp_path: Path) -> None:
    store = open_store(StoreSpec(path=tmp_path / "data"))
    try:
        assert isinstance(store, EmbeddedStore)
        assert (tmp_path / "data" / "lock").exists()
    finally:
        store.close()


def test_data_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    row = {"environment": ["e"], "model": ["m"], "layout_id": ["l"], "cells": ["{}"]}
    with EmbeddedStore(tmp_path / "s") as store:
        migrate(store)
        store.insert("layouts", pl.DataFrame(row))
    with EmbeddedStore(tmp_path / "s") as store:
        assert store.query("first_layouts").rows() == [("e", "m", "{}")]


def test_what_of_the_engine_was_needed_only_to_start_it_leaves_memory(tmp_path: Path) -> None:
    code = """
import chdb, pathlib, sys
from monitor.store.embedded import EmbeddedStore
def of_files():
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("RssFile"))
before = of_files()
with EmbeddedStore(pathlib.Path(sys.argv[1])) as store:
    print(before - of_files(), store.select("SELECT 1 AS one").item())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    given_back, answer = map(int, done.stdout.split())
    assert (given_back > 50_000, answer) == (True, 1)


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
