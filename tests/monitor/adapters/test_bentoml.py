"""BentoML's monitoring files: what a real BentoML writes, imported once however often it is tried."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import serving
import urllib3
from given import NOON, ServiceMaker
from processes import free_port, running
from typer.testing import CliRunner

from monitor.adapters import AdapterSettings, Sender
from monitor.adapters.bentoml import Bentoml, chunks, import_folder
from monitor.cli import app
from monitor.decode import decode
from monitor.running import listening, serve
from monitor.service import Service

SENDER = Sender(model="loans", version="1", server="pod-1")
COLUMNS = [
    {"name": "age", "role": "feature", "type": "numerical"},
    {"name": "timestamp_", "role": "feature", "type": "categorical"},
    {"name": "decision", "role": "prediction", "type": "categorical"},
    {"name": "truth", "role": "target", "type": "categorical"},
]
WRITER = """
import sys, bentoml
for i in range(3):
    with bentoml.monitor("loans", monitor_options={"log_path": sys.argv[1]}) as m:
        m.log(20.5 + i, "age", "feature", "numerical")
        m.log([1, 2], "history", "feature", "numerical_sequence")
        m.log("mine", "timestamp", "feature", "categorical")
        m.log("yes", "decision", "prediction", "categorical")
        m.log("no", "truth", "target", "categorical")
with bentoml.monitor("loans") as m:
    m.log_batch([1.0, 2.0], "age", "feature", "numerical")
    m.log_batch(["yes", "no"], "decision", "prediction", "categorical")
"""
TWO_MONITORS = """
import sys, bentoml
for name in ("first", "second", "first"):
    with bentoml.monitor(name, monitor_options={"log_path": sys.argv[1]}) as m:
        m.log(1.5, f"only_{name}", "feature", "numerical")
        m.log("yes", "decision", "prediction", "categorical")
"""


SERVICE = """
import bentoml

@bentoml.service(workers=1)
class Loans:
    @bentoml.api
    def predict(self, age: float) -> str:
        answer = "yes" if age > 40 else "no"
        with bentoml.monitor("loans") as m:
            m.log(age, "age", "feature", "numerical")
            m.log(answer, "decision", "prediction", "categorical")
        return answer
"""


def schema(version: str = "not available", columns: Any = COLUMNS) -> bytes:
    meta = {"bento_name": "bank", "bento_version": version}
    return json.dumps({"meta_data": meta, "columns": columns}).encode() + b"\n"


def record(number: int, request: str = "", second: int = 0, **more: Any) -> bytes:
    own = {"timestamp": f"2026-03-01T11:59:{second:02}.5", "request_id": request or f"r{number}", "trace_id": "255"}
    values = {"age": number, "timestamp_": "mine", "decision": "yes", "truth": None, **more}
    return json.dumps(values | own).encode() + b"\n"


def written(folder: Path, script: str = WRITER) -> Path:
    """What a real BentoML writes."""
    python = serving.environment("bentoml") / "python"
    logs = folder / "monitoring"
    environment = {"TZ": "UTC", "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [str(python), "-W", "ignore", "-c", script, str(logs)]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120)
    return logs


def made(folder: Path, *lines: bytes, described: bytes = schema(), name: str = "data.1.log") -> Path:
    """Files as BentoML writes them."""
    for part, content, file in (("schema", described, "schema.1.log"), ("data", b"".join(lines), name)):
        (folder / "loans" / part).mkdir(parents=True, exist_ok=True)
        (folder / "loans" / part / file).write_bytes(content)
    return folder


def imported(service: Any, folder: Path, sender: Sender = SENDER, chunk_bytes: int = 10_000) -> tuple[int, list[Any]]:
    answers = [answer for _, answer in import_folder(service, folder, sender, chunk_bytes)]
    return sum(a["accepted"] for a in answers), [r for a in answers for r in a["rejected"]]


def ids(service: Service) -> list[str]:
    sql = "SELECT prediction_id AS id FROM predictions FINAL ORDER BY id"
    return service.store.select(sql)["id"].to_list()


def read(*lines: bytes, described: bytes = schema(), sender: Sender = SENDER, **settings: Any) -> Any:
    translated = Bentoml(AdapterSettings.model_validate(settings)).translate(described + b"".join(lines), {}, sender, 0)
    return translated, decode(translated.lines, NOON.timestamp())


def test_what_bentoml_writes_is_taken_in_once(tmp_path: Path, make_service: ServiceMaker) -> None:
    service = make_service()
    service.clock.at = datetime.now(UTC)  # type: ignore[attr-defined]  # the clock of tests
    logs = written(tmp_path)
    sender = Sender(version="1", server="pod-1")
    for _ in range(2):
        assert imported(service, logs, sender) == (8, [])
        counts = service.status()["rows"]
        assert (counts["predictions"], counts["labels"], counts["dead_letters"]) == (5, 3, 0)
    (model,) = service.models()
    assert (model["model"], model["features"]) == (
        "loans", {"age": "numeric", "history_0": "numeric", "history_1": "numeric", "timestamp": "categorical"},
    )  # fmt: skip
    times = service.store.select("SELECT min(timestamp) AS first FROM predictions FINAL")["first"][0]
    assert abs((times - datetime.now(UTC)).total_seconds()) < 300
    assert len(set(ids(service))) == 5


def test_predictions_of_a_served_bento_have_the_ids_that_its_clients_saw(
    tmp_path: Path, make_service: ServiceMaker
) -> None:
    commands, port = serving.environment("bentoml"), free_port()
    (tmp_path / "service.py").write_text(SERVICE)
    url, seen = f"http://127.0.0.1:{port}", {}

    def ready() -> bool:
        try:
            return urllib3.request("GET", f"{url}/readyz", retries=False, timeout=1).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    place = ["--working-dir", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)]
    command = ["env", "-C", str(tmp_path), str(commands / "bentoml"), "serve", "service:Loans", *place]
    environment = {"TZ": "UTC", "BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    with running(command, tmp_path / "log.txt", ready, environment):
        for age in (30.0, 50.0):
            answer = urllib3.request("POST", f"{url}/predict", json={"age": age}, retries=False, timeout=30)
            seen[answer.headers["X-BentoML-Request-ID"] + ":0"] = answer.data.decode()
    service = make_service()
    service.clock.at = datetime.now(UTC)  # type: ignore[attr-defined]  # the clock of tests
    assert imported(service, tmp_path / "monitoring", Sender(version="1", server="pod-1")) == (2, [])
    rows = service.store.select("SELECT prediction_id, label FROM predictions FINAL").iter_rows()
    assert dict(rows) == seen
    assert sorted(seen.values()) == ["no", "yes"]


def test_records_of_another_monitor_in_the_same_file_are_refused(tmp_path: Path, make_service: ServiceMaker) -> None:
    service = make_service()
    service.clock.at = datetime.now(UTC)  # type: ignore[attr-defined]  # the clock of tests
    accepted, rejected = imported(service, written(tmp_path, TWO_MONITORS), Sender(version="1", server="pod-1"))
    assert accepted == 2
    (refusal,) = rejected
    assert refusal["line"] == 2
    assert "BentoML writes all monitors of a process to one file" in refusal["reason"]


def test_the_command_imports_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(made(tmp_path / "logs", record(1), record(2), b"{}\n", described=schema("v3")))
    for _ in range(2):
        done = CliRunner().invoke(app, ["import", "--format", "bentoml", folder, "--server", "pod-1"])
        assert done.stdout == "2 events taken in, 1 put into dead_letters\n"
        assert "line 3: bad_timestamp: timestamp is 'None'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "bentoml", "logs"], "--server is missing"),
        (["--format", "bentoml", "none", "--server", "a"], "none: there is no data/data.*.log below it"),
        (["log.ndjson", "--server", "a"], "--server is for --format bentoml"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "logs", record(1))
    (tmp_path / "log.ndjson").write_text("{}")
    done = CliRunner().invoke(app, ["import", *arguments])
    assert (done.exit_code, said in done.stderr) == (2, True)


def test_a_running_service_imports_it_too(tmp_path: Path, make_service: ServiceMaker) -> None:
    from monitor.remote import RemoteService

    service = make_service()
    logs = made(tmp_path / "logs", *(record(i) for i in range(50)), b"x\n")
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url), RemoteService(url) as remote:
        for importer in (remote, service, remote):
            accepted, rejected = imported(importer, logs, chunk_bytes=1000)
            assert (accepted, [r["line"] for r in rejected]) == (50, [51])
    assert len(ids(service)) == 50


def test_files_that_grow_and_are_rotated_are_imported_once(tmp_path: Path, make_service: ServiceMaker) -> None:
    service = make_service()
    lines = [record(i) for i in range(100)]
    logs = made(tmp_path / "logs", *lines[:55])
    imported(service, logs, chunk_bytes=1500)
    data = made(tmp_path / "logs", *lines) / "loans" / "data"
    imported(service, logs, chunk_bytes=1500)
    (data / "data.1.log").rename(data / "data.1.log.2026-03-01")
    (data / "data.1.log").write_bytes(record(100))
    imported(service, logs, chunk_bytes=1500)
    assert len(ids(service)) == len(set(ids(service))) == 101


def test_a_schema_that_a_restart_wrote_again_makes_no_record_another_one(
    tmp_path: Path, make_service: ServiceMaker
) -> None:
    service = make_service()
    lines = [record(i) for i in range(20)]
    logs = made(tmp_path / "logs", *lines[:15], b"x\n")
    imported(service, logs, chunk_bytes=1500)
    made(tmp_path / "logs", *lines[:15], b"x\n", *lines[15:], described=2 * schema())
    accepted, rejected = imported(service, logs, chunk_bytes=1500)
    assert (accepted, [r["line"] for r in rejected]) == (20, [16])
    assert len(ids(service)) == len(set(ids(service))) == 20
    for heading in (schema(), 2 * schema()):
        service.foreign.take("bentoml", heading + record(50), {}, SENDER)
    assert len(ids(service)) == 21


def test_records_of_one_request_are_numbered_and_stay_together(tmp_path: Path, make_service: ServiceMaker) -> None:
    lines = [record(i, request=f"q{i // 7}", second=i // 7) for i in range(70)]
    logs = made(tmp_path / "logs", *lines)
    assert all(len(chunk.splitlines()) % 7 == 0 for chunk in chunks(logs / "loans/data/data.1.log", 500))
    service = make_service()
    imported(service, logs, chunk_bytes=500)
    assert ids(service) == sorted(f"q{i // 7}:{i % 7}" for i in range(70))


def test_monitors_of_one_request_that_write_at_different_moments_are_numbered_on() -> None:
    times = [(1, "q", 1), (2, "q", 2), (3, "p", 2), (4, "q", 3), (5, "p", 4)]
    _, decoded = read(*(record(n, request=request, second=second) for n, request, second in times))
    (events,) = decoded.predictions.values()
    assert [e["prediction_id"] for e in events] == ["q:0", "q:1", "p:0", "q:2", "p:1"]


def test_a_request_that_writes_at_different_moments_is_not_cut_apart(tmp_path: Path) -> None:
    lines = [record(i, request=f"q{i // 7}", second=i % 60) for i in range(70)]
    logs = made(tmp_path / "logs", *lines)
    assert all(len(chunk.splitlines()) % 7 == 0 for chunk in chunks(logs / "loans/data/data.1.log", 500))


def test_probabilities_are_called_by_the_classes_of_the_model() -> None:
    columns = [*COLUMNS[:2], {"name": "odds", "role": "prediction", "type": "numerical_sequence"}]
    _, decoded = read(
        json.dumps({**json.loads(record(1)), "odds": [0.25, 0.75]}).encode(),
        described=schema(columns=[*columns, *COLUMNS[2:]]),
        class_names={"loans": ["no", "yes"]},
    )
    ((event,),) = decoded.predictions.values()
    assert event["prediction"] == {"score": {"no": 0.25, "yes": 0.75}, "label": "yes"}


def test_a_target_is_a_label_of_its_own_prediction() -> None:
    _, decoded = read(record(1, truth="no"), record(2))
    (label,) = decoded.labels
    assert (label["prediction_id"], label["text"]) == ("r1:0", "no")
    (events,) = decoded.predictions.values()
    assert events[0]["features"] == {"age": 1, "timestamp": "mine"}
    assert (events[0]["trace_id"], events[0]["prediction"]) == (f"{255:032x}", "yes")


@pytest.mark.parametrize(("timezone", "hour"), [("UTC", 11), ("Asia/Tokyo", 2), ("America/New_York", 16)])
def test_times_are_those_of_the_configured_zone(timezone: str, hour: int) -> None:
    translated, _ = read(record(1), bentoml={"timezone": timezone})
    ((event,),) = decode(translated.lines, NOON.timestamp() + 86_400).predictions.values()
    assert datetime.fromtimestamp(event["at"], UTC).hour == hour


def test_outside_of_a_request_the_id_is_made_from_the_record() -> None:
    lines = [record(i, request="None", second=i) for i in range(3)]
    _, decoded = read(*lines)
    (events,) = decoded.predictions.values()
    assert len({e["prediction_id"] for e in events}) == 3
    assert all(e["prediction_id"].endswith(":0") for e in events)


@pytest.mark.parametrize(
    ("described", "sender", "said"),
    [
        (b"", SENDER, "there is no schema"),
        (schema(), Sender(model="m", server="s"), "version is missing"),
        (schema("a") + schema("b"), Sender(model="m", server="s"), "names the versions a, b"),
        (schema("a"), Sender(model="m"), "server is missing"),
    ],
)
def test_what_the_files_do_not_say_has_to_be_told(described: bytes, sender: Sender, said: str) -> None:
    translated, decoded = read(record(1), described=described, sender=sender)
    assert decoded.accepted == 0
    assert said in translated.refused[0].detail


def test_the_bento_names_model_and_version() -> None:
    _, decoded = read(record(1), described=schema("v3"), sender=Sender(server="s"))
    (((_, model), (event,)),) = decoded.predictions.items()
    assert (model, event["version"]) == ("bank", "v3")
