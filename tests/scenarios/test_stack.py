"""The whole stack of docker-compose.yml, as processes: its commands, environment and configuration, on real servers.

Only what a container brings is put in place of it: names of hosts, places of files, and ports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from broker import Broker
from clickhouse import clickhouse_server, opened
from postgres import PASSWORD as POSTGRES_PASSWORD
from postgres import Postgres
from processes import Process, free_port, wait_until

from monitor.config import ClickHouseSpec
from monitor.demo.pods import MODEL
from monitor.demo.world import Plan

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
ONE_SHOT = ("migrate", "dashboards")
ROOMS = ("ingest", "judge", "api")
FLEET = "fleet"
FOUND_SECONDS = 180


class Stack:
    """Our services of the compose file, run here."""

    def __init__(self, folder: Path, replaced: Mapping[str, str]) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ROOMS}
        self._replaced = {**replaced, "http://api:8300": f"http://127.0.0.1:{self.ports['api']}"}
        self.processes: dict[str, Process] = {}
        for source in (ROOT / "deploy").glob("*.yaml"):
            (folder / source.name).write_text(self._here(source.read_text("utf-8")), "utf-8")

    def run(self, name: str) -> None:
        """Start a service as its container would."""
        service = OURS[name]
        port = str(self.ports.get(name, 0))
        command = [{"0.0.0.0": "127.0.0.1", "8300": port}.get(word, self._here(word)) for word in service["command"]]  # noqa: S104 - it is taken out
        environment = {key: self._here(str(value)) for key, value in service.get("environment", {}).items()}
        words = [sys.executable, "-m", "monitor.cli", *command]
        environment["PYTHONPATH"] = str(ROOT)
        self.processes[name] = Process(words, self.folder / f"{name}.log", environment)

    def finished(self, name: str) -> None:
        process = self.processes[name]
        wait_until(lambda: not process.alive(), f"{name} to end")
        assert process.stop() == 0, process.output()

    def ready(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.ports[name]}/readyz"
        self.processes[name].wait_until(lambda: _status(url) == 200, name)

    def asked(self, path: str, key: str) -> Any:
        secret = (self.folder / "secrets" / key).read_text().strip()
        url = f"http://127.0.0.1:{self.ports['api']}{path}"
        answer = urllib3.request("GET", url, headers={"Authorization": f"Bearer {secret}"}, timeout=30)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def stop(self) -> dict[str, int]:
        """Stop everything that still runs; the exit codes."""
        return {name: process.stop() for name, process in reversed(self.processes.items())}

    def output(self) -> str:
        return "\n".join(f"--- {name}\n{process.output()[-3000:]}" for name, process in self.processes.items())

    def _here(self, text: str) -> str:
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        return text


def _status(url: str) -> int:
    try:
        return int(urllib3.request("GET", url, timeout=5, retries=False).status)
    except urllib3.exceptions.HTTPError:
        return 0


@pytest.fixture
def stack(broker: Broker, postgres: Postgres, tmp_path: Path) -> Iterator[Stack]:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in COMPOSE["secrets"]:
        (secrets / name).write_text(f"secret-of-{name}\n")
    (secrets / "postgres_password").write_text(POSTGRES_PASSWORD)
    with ExitStack() as running:
        password = secrets / "clickhouse_password"
        clickhouse = running.enter_context(
            clickhouse_server(tmp_path / "clickhouse", user="telltale", password_file=password)
        )
        with opened(ClickHouseSpec(url=clickhouse.url, password_file=password)) as admin:
            admin.execute("CREATE DATABASE telltale")
        ledger = running.enter_context(postgres.database())
        topic = broker.topic(partitions=8)
        stack = Stack(
            tmp_path,
            {
                "kafka:9092": broker.bootstrap,
                "clickhouse:9000": f"127.0.0.1:{clickhouse.port}",
                "postgres:5432/telltale": f"{ledger.host}:{ledger.port}/{ledger.database}",
                "scoring-logs": topic,
                "/run/secrets": str(secrets),
                "/etc/telltale": str(tmp_path),
                "/var/lib/telltale": str(tmp_path / "data"),
                "/dashboards": str(tmp_path / "dashboards"),
            },
        )
        try:
            yield stack
        finally:
            stack.stop()


def test_the_stack_finds_the_fault_of_the_sample_fleet(stack: Stack) -> None:
    assert set(OURS) == {*ONE_SHOT, *ROOMS, FLEET}
    for name in ONE_SHOT:
        stack.run(name)
        stack.finished(name)
    assert [f.name for f in (stack.folder / "dashboards").iterdir()]
    for name in ROOMS:
        stack.run(name)
    for name in ROOMS:
        stack.ready(name)
    stack.run(FLEET)
    plan = Plan.of(1)
    broken = {*plan.shifted, plan.nulled}
    try:
        wait_until(lambda: broken <= found(stack), f"drift in {sorted(broken)}", FOUND_SECONDS, pause=1)
    except TimeoutError:
        pytest.fail(stack.output())
    assert found(stack) == broken
    served = stack.asked(f"/v1/models/{MODEL}/fleet", "api_read_key")
    assert {place["version"] for place in served} == {"1"}
    assert len(served) == 6
    assert set(stack.stop().values()) == {0}
    assert "secret-of" not in stack.output()
    assert POSTGRES_PASSWORD not in stack.output()


def found(stack: Stack) -> set[str]:
    """The features that alerts on drift name."""
    timeline = stack.asked("/v1/alerts", "api_read_key")["timeline"]
    return {f for line in timeline if line["event"] == "drift_found" for f in line.get("features", [])}
