"""Adult census income (Kohavi 1996): train and test are a random split, so nothing drifts."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(os.environ.get("TELLTALE_TEST_DATA", "/nowhere"))
ROOT = Path(__file__).parents[2]
COLUMNS = (
    "age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,sex,"
    "capital_gain,capital_loss,hours_per_week,native_country"
)

pytestmark = pytest.mark.skipif(
    not (DATA / "adult_train.csv.gz").exists(),
    reason="adult_*.csv.gz are not in the folder that TELLTALE_TEST_DATA names",
)


def table(name: str, folder: Path) -> Path:
    """The file with a header and without its label."""
    lines = gzip.decompress((DATA / f"{name}.csv.gz").read_bytes()).decode().splitlines()
    rows = [", ".join(line.split(", ")[:-1]) for line in lines if line.strip()]
    path = folder / f"{name}.csv"
    path.write_text("\n".join([COLUMNS, *(r.replace(", ", ",") for r in rows)]), "utf-8")
    return path


def compare(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monitor.cli", "compare", *map(str, paths)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_a_random_split_is_no_drift(tmp_path: Path) -> None:
    done = compare(table("adult_train", tmp_path), table("adult_test", tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_planted_change_is_found_and_named(tmp_path: Path) -> None:
    train, test = table("adult_train", tmp_path), table("adult_test", tmp_path)
    header, *rows = test.read_text("utf-8").splitlines()
    older = [",".join([str(int(r.split(",")[0]) + 5), *r.split(",")[1:]]) for r in rows]
    test.write_text("\n".join([header, *older]), "utf-8")
    done = compare(train, test)
    assert done.returncode == 1
    assert "age" in done.stdout
    assert "occupation" not in done.stdout.partition("\n\n")[0] or "1 of 14" in done.stdout
