"""The commands as a person types them, in an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import urllib3
from given import ndjson, prediction

ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC).replace(second=0, microsecond=0)


def telltale(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a log of 600 predictions, a training table and a configuration."""
    at = NOW - timedelta(minutes=30)
    events = [prediction(i, at, features={"x": float(i % 50), "c": "ab"[i % 2]}) for i in range(600)]
    labels = [
        {"type": "label", "model": "m", "prediction_id": f"p{i}", "label": "yes", "timestamp": at.timestamp()}
        for i in range(300)
    ]
    (tmp_path / "log.ndjson").write_bytes(ndjson([*events, *labels]))
    table = pl.DataFrame({"x": [float(i % 50) for i in range(2000)], "c": ["a", "b"] * 1000})
    table.write_parquet(tmp_path / "train.parquet")
    table.with_columns(pl.col("x") + 20).write_csv(tmp_path / "moved.csv")
    (tmp_path / "telltale.yaml").write_text(
        "models: {m: {windows: [1h], label_delay: 0s}}\npolicies: [{name: inputs, watch: drift}]\n"
    )
    return tmp_path


def test_a_models_first_five_minutes(folder: Path) -> None:
    made = telltale(folder, "reference", "m", "train.parquet")
    assert made.stdout == "m: 2000 rows of train.parquet are the reference for x, c\n"
    for _ in range(2):
        assert telltale(folder, "import", "log.ndjson").stdout == "900 events taken in, 0 put into dead_letters\n"
    judged = telltale(folder, "evaluate", "m")
    assert judged.returncode == 0, judged.stderr
    assert "600 predictions" in judged.stdout
    assert "ok inputs" in judged.stdout
    assert "50.0% labelled" in judged.stdout
    fleet = json.loads(telltale(folder, "fleet", "m", "--json").stdout)
    assert {(p["server"], p["rows"]) for p in fleet} == {("pod-0", 200), ("pod-1", 200), ("pod-2", 200)}
    assert "600 predictions" in telltale(folder, "status").stdout
    span = ("--from", (NOW - timedelta(hours=1)).isoformat(), "--to", NOW.isoformat())
    assert telltale(folder, "export", "m", "out.parquet", *span).returncode == 0
    kept = pl.read_parquet(folder / "out.parquet")
    assert (kept.height, kept["x"].sum()) == (600, sum(float(i % 50) for i in range(600)))


def test_compare_answers_by_its_exit_code(folder: Path) -> None:
    same = telltale(folder, "compare", "train.parquet", "train.parquet")
    moved = telltale(folder, "compare", "train.parquet", "moved.csv", "--json")
    few = telltale(folder, "compare", "train.parquet", "few.csv")
    (folder / "few.csv").write_text("x,c\n1,a\n")
    too_few = telltale(folder, "compare", "train.parquet", "few.csv")
    assert [same.returncode, moved.returncode, few.returncode, too_few.returncode] == [0, 1, 2, 2]
    assert json.loads(moved.stdout)["drifted"] == ["x"]
    assert few.stderr == "telltale: few.csv: there is no such file\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fleet", "nope"), "model 'nope' is not known"),
        (("import", "none.ndjson"), "none.ndjson: there is no such file"),
        (("reference", "m", "log.txt"), "log.txt: cannot tell its format"),
        (("evaluate", "m", "--at", "yesterday"), "'yesterday' is not a time with an offset"),
        (("evaluate", "m", "--at", "2026-01-01T00:00"), "is not a time with an offset"),
        (("check", "--config", "none.yaml"), "none.yaml: cannot be read"),
        (("run", "--host", "0.0.0.0"), "no api_keys are configured"),  # noqa: S104 - it is refused
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = telltale(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rubbish_in_a_file_is_told_by_line(folder: Path) -> None:
    (folder / "bad.ndjson").write_bytes(b'{"type": "label"}\n\xff\xfe\n' + b"x" * 100)
    done = telltale(folder, "import", "bad.ndjson")
    assert done.stdout == "0 events taken in, 3 put into dead_letters\n"
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["line 1", "line 2", "line 3"]


def test_check_says_what_is_right(folder: Path) -> None:
    assert telltale(folder, "check").stdout == "telltale.yaml is right: 1 models, 1 policies\n"


def test_without_a_configuration_the_defaults_are_used(tmp_path: Path) -> None:
    done = telltale(tmp_path, "migrate")
    assert done.returncode == 0
    assert "using the defaults" in done.stderr
    assert "0001 dead_letters" in done.stdout
    assert telltale(tmp_path, "migrate").stdout == "nothing to do\n"


@pytest.fixture
def running(folder: Path) -> Iterator[tuple[Path, str]]:
    """A service that runs on the folder."""
    command = [sys.executable, "-m", "monitor.cli", "run", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as service:
        note = folder / "data" / "service.json"
        deadline = time.monotonic() + 60
        while not note.exists() and time.monotonic() < deadline and service.poll() is None:
            time.sleep(0.05)
        yield folder, json.loads(note.read_text("utf-8"))["url"]
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=30) == 0
        assert not note.exists()


def test_commands_find_the_service_that_runs_on_the_folder(running: tuple[Path, str]) -> None:
    folder, url = running
    made = telltale(folder, "reference", "m", "train.parquet")
    assert (made.returncode, f"Asking the service that runs at {url}" in made.stderr) == (0, True)
    assert telltale(folder, "import", "log.ndjson").stdout == "900 events taken in, 0 put into dead_letters\n"
    assert "600 predictions" in telltale(folder, "evaluate", "m").stdout
    assert "pod-0" in telltale(folder, "fleet", "m").stdout
    assert telltale(folder, "fleet", "nope").returncode == 2
    with urllib3.PoolManager(retries=False, timeout=30) as pool:
        assert pool.request("GET", url + "/readyz").data == b"ready\n"


def test_a_folder_in_use_by_something_else_is_said(folder: Path) -> None:
    code = (
        "import pathlib, sys, monitor.store.embedded as e; s = e.EmbeddedStore(pathlib.Path('data')); "
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        done = telltale(folder, "status")
        holder.communicate()
    assert done.returncode == 2
    assert "is in use by another process" in done.stderr


@pytest.mark.parametrize(("code", "limit"), [("import telltale", 0.5), ("import monitor.cli", 0.7)])
def test_starting_loads_nothing_heavy(code: str, limit: float) -> None:
    """Which modules are loaded is what makes start-up slow; the benchmark measures the seconds."""
    heavy = ("chdb", "scipy.stats", "pandas", "sklearn", "evidently", "sqlalchemy", "fastapi", "pyarrow")
    check = f"import sys; {code}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", f"budget {limit} s"
