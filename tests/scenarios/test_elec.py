"""Elec2, from file to verdict by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import yaml
from elec import (
    CHANGED,
    CHANGED_ROW,
    FILE,
    FIRST,
    HALF_HOUR,
    MISSING,
    MODEL,
    ROWS_A_WEEK,
    SERVERS,
    SPEC,
    answers_to,
    events,
    read_table,
)
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=MISSING)


def telltale(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "monitor.cli", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return read_table()


@pytest.fixture(scope="module")
def answers(table: pl.DataFrame) -> NDArray[np.int64]:
    return answers_to(table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame, answers: NDArray[np.int64]) -> Path:
    """A folder with a configuration and all of the data imported, twice."""
    folder = tmp_path_factory.mktemp("elec")
    (folder / "log.ndjson").write_bytes(b"\n".join(map(orjson.dumps, events(table, answers))))
    (folder / "telltale.yaml").write_text(yaml.safe_dump({"models": {MODEL: SPEC}}), "utf-8")
    first = telltale(folder, "import", "log.ndjson")
    assert (
        first
        == telltale(folder, "import", "log.ndjson")
        == f"{2 * table.height} events taken in, 0 put into dead_letters\n"
    )
    return folder


def evaluate(folder: Path, end: datetime) -> list[dict[str, Any]]:
    answer = json.loads(telltale(folder, "evaluate", MODEL, "--at", end.isoformat(), "--json"))
    findings: list[dict[str, Any]] = answer["findings"]
    # What is usual cannot be learned from a few weeks that somebody asks for.
    return [f for f in findings if f["baseline"] != "history"]


def inputs(findings: Sequence[dict[str, Any]]) -> list[str]:
    """The input features in the order in which they are reported."""
    return [f["feature"] for f in findings if f["detector"] == "drift" and not f.get("feature", "@").startswith("@")]


def test_the_first_week_that_holds_the_change_ranks_the_changed_features_first(folder: Path) -> None:
    week = CHANGED_ROW // ROWS_A_WEEK
    for earlier in range(week - 8, week):
        findings = evaluate(folder, FIRST + timedelta(weeks=earlier + 1))
        p_values = {f["feature"]: f["p_value"] for f in findings if f["detector"] == "drift"}
        assert {name: p_values[name] for name in CHANGED} == dict.fromkeys(CHANGED, 1.0)
    for later in (week, week + 1):
        findings = evaluate(folder, FIRST + timedelta(weeks=later + 1))
        assert set(inputs(findings)[:3]) == CHANGED
        assert all(f["p_value"] < 1e-6 for f in findings if f.get("feature") in CHANGED and f["detector"] == "drift")


def test_accuracy_and_label_coverage_are_right_to_the_row(
    folder: Path, table: pl.DataFrame, answers: NDArray[np.int64]
) -> None:
    week = 30
    findings = evaluate(folder, FIRST + timedelta(weeks=week + 1, days=2))
    found = next(f for f in findings if f["detector"] == "accuracy" and "server" not in f)
    rows = slice(week * ROWS_A_WEEK, (week + 1) * ROWS_A_WEEK)
    right = int((answers[rows] == table["class"].to_numpy()[rows]).sum())
    assert found["n"] == ROWS_A_WEEK
    assert round(found["value"] * ROWS_A_WEEK) == right
    assert found["effects"]["label_coverage"] == 1.0


def test_labels_that_have_not_come_yet_are_not_counted(folder: Path) -> None:
    """A week judged a day too early for its last labels would be; accuracy waits for the label delay instead."""
    findings = evaluate(folder, FIRST + timedelta(weeks=11))
    found = next(f for f in findings if f["detector"] == "accuracy" and "server" not in f)
    assert found["end"] == (FIRST + timedelta(weeks=11) - timedelta(days=2)).isoformat()
    assert found["effects"]["label_coverage"] == 1.0


def test_the_fleet_map_is_right_to_the_row(folder: Path, table: pl.DataFrame) -> None:
    last = FIRST + HALF_HOUR * (table.height - 1)
    places = json.loads(telltale(folder, "fleet", MODEL, "--at", (last + HALF_HOUR).isoformat(), "--json"))
    expected = {name: len(range(i, table.height, 3)) for i, name in enumerate(SERVERS)}
    assert {p["server"]: p["rows"] for p in places} == expected
    assert {p["version"] for p in places} == {"1"}
    assert min(p["first_seen"] for p in places) == FIRST.isoformat()
    assert max(p["last_seen"] for p in places) == last.isoformat()
    assert all(p["serving"] for p in places)


def test_status_counts_every_row(folder: Path, table: pl.DataFrame) -> None:
    counted = json.loads(telltale(folder, "status", "--json"))["rows"]
    assert (counted["predictions"], counted["labels"], counted["dead_letters"]) == (table.height, table.height, 0)
