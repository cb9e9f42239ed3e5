"""The commands as a person types them, in an empty folder."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import polars as pl
import pytest
import structlog
import urllib3
from given import ndjson, prediction
from rich.text import Text

from monitor.cli import main
from monitor.demo.story import clear, sentence
from monitor.logs import configure
from monitor.running import listening
from monitor.show import show_evaluation, show_fleet, show_servers, show_status
from monitor.store import StoreBusyError

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
    servers = json.loads(telltale(folder, "fleet", "--json").stdout)
    assert {(s["server"], s["serves"][0]["model"]) for s in servers} == {(f"pod-{i}", "m") for i in range(3)}
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "train.parquet", "train.parquet", "--false-alarms", "0"), "--false-alarms must be above 0"),
        (("compare", "train.parquet", "train.parquet", "--false-alarms", "1"), "--false-alarms must be above 0"),
        (("compare", "train.parquet", "train.parquet", "--false-alarms", "nan"), "--false-alarms must be above 0"),
        (("run", "--port", "65536"), "Invalid value for '--port'"),
        (("demo", "--port", "-1"), "Invalid value for '--port'"),
        (
            ("export", "m", "no/out.parquet", "--from", "2026-01-01T00:00Z", "--to", "2026-01-02T00:00Z"),
            "no: there is no such folder; make it first",
        ),
    ],
)
def test_options_out_of_range_are_told(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = telltale(folder, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next command meets an error that nobody foresaw."""

    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError("nobody\nforesaw this")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("monitor.service.Service.__init__", fail)
    monkeypatch.setattr(sys, "argv", ["telltale", "migrate"])


@pytest.mark.usefixtures("broken")
def test_an_unexpected_error_is_one_line_and_never_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("\ntelltale: unexpected error: ZeroDivisionError: nobody foresaw this\n")


@pytest.mark.usefixtures("broken")
def test_debugging_shows_where_an_unexpected_error_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_LOG_LEVEL", "debug")
    with pytest.raises(SystemExit):
        main()
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_check_warns_of_secrets_that_are_not_there(folder: Path) -> None:
    with (folder / "telltale.yaml").open("a") as file:
        file.write("api_keys: [{name: a, scopes: [read], key_env: TELLTALE_GONE}]\n")
    done = telltale(folder, "check")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: api_keys[0]: the environment variable TELLTALE_GONE is not set; it should hold a secret\n"
    )


@pytest.mark.parametrize("room", ["ingest", "judge", "api"])
def test_every_room_says_where_it_listens_and_answers_there(folder: Path, room: str) -> None:
    command = [sys.executable, "-m", "monitor.cli", "run", "--only", room, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        said = service.stderr.readline()
        url = said.split()[-1]
        assert said == f"Telltale listens at {url.rstrip('/')}; the page is at {url}\n"
        assert urllib3.request("GET", f"{url}readyz").data == b"ready\n"
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=60) == 0
        assert service.stderr.read() == "Stopping\n"


def test_the_demo_leaves_its_folder_alone_when_it_cannot_begin(folder: Path) -> None:
    (folder / ".demo").mkdir()
    (folder / ".demo" / "kept").touch()
    with listening("127.0.0.1", 0) as (taken, _):
        done = telltale(folder, "demo", "--exit", "--port", str(taken.getsockname()[1]))
    assert (done.returncode, "cannot listen on 127.0.0.1 port" in done.stderr) == (2, True)
    assert (folder / ".demo" / "kept").exists()


def test_a_demo_that_runs_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreBusyError, match="is in use by another demo; stop that one first"):
            clear(tmp_path)
        assert (tmp_path / "data" / "lock").exists()
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


NAME = "v[/x]"


def test_names_with_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    at = "2026-01-05T06:10:00Z"
    times = {"first_seen": at, "last_seen": at}
    places = [{"server": NAME, "version": NAME, "rows": 1, "serving": True, "announced": None, **times}]
    place = {"version": NAME, "server": NAME}
    model = {"model": NAME, "environment": NAME, "task": "t", "features": [], "references": [NAME], "owner": NAME}
    verdict = {**place, "state": "unsure", "policy": NAME, "features": [NAME], "reason": NAME}
    measured = {
        "start": at,
        "end": at,
        "detector": "drift",
        "feature": NAME,
        "status": "measured",
        "severity": 0.5,
        "value": None,
        "p_value": None,
        "component": NAME,
        "message": "",
        "n": 1,
    }
    unjudged = {"start": at, "end": at, "n": 1, "value": None, "message": NAME, "status": "error", "version": NAME}
    show_fleet(NAME, places)
    show_fleet(NAME, [])
    show_servers([{"server": NAME, "serves": [{"model": NAME, "version": NAME, "since": at}]}])
    show_status(
        {
            "now": at,
            "rows": {"predictions": 1},
            "models": [model],
            "incidents": [{**place, "policy": NAME, "model": NAME, "since": at}],
        }
    )
    findings = [
        {**measured, **place},
        {**unjudged, "detector": "drift"},
        {**unjudged, "detector": "accuracy"},
        {**measured, "detector": "server_outlier", "status": "error", "message": NAME},
        {**unjudged, "detector": "schema", "status": "measured", "severity": 2.0},
    ]
    show_evaluation({"model": NAME, "environment": NAME, "at": at, "verdicts": [verdict], "findings": findings})
    told = capsys.readouterr().out
    in_fleet, in_status, in_evaluation = 3 + 1 + 3, 4 + 4, 2 + 5 + 1 + 4 + 1 + 2 + 2
    assert told.count(NAME) == in_fleet + in_status + in_evaluation
    assert "\\" not in told


def test_the_demo_tells_names_with_brackets() -> None:
    told = sentence({"at": "2026-01-05T06:10:00Z", "event": "drift_found", "version": NAME, "features": [NAME]})
    assert Text.from_markup(told).plain == f"06:10  drift found  version {NAME}; features {NAME}"


class Terminal(io.StringIO):
    """Takes what is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_log_lines_hold_no_values_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    configure()
    try:
        secret = "".join(("hu", "sh"))
        int(secret[:0])
    except ValueError:
        structlog.get_logger().exception("it failed")
    finally:
        structlog.reset_defaults()
    told = terminal.getvalue()
    assert "it failed" in told
    assert "Traceback" in told
    assert "hush" not in told


def test_log_lines_that_nobody_can_read_any_more_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    configure()
    try:
        terminal.close()
        structlog.get_logger().info("nobody hears this")
    finally:
        structlog.reset_defaults()


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
    assert "pod-0" in telltale(folder, "fleet").stdout
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
