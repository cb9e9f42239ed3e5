"""Debian's Alertmanager and Prometheus for tests, each on loopback and in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import processes
import urllib3
import yaml

ROUTES = {"route": {"receiver": "nobody", "group_by": ["alertname"]}, "receivers": [{"name": "nobody"}]}
POOL = urllib3.PoolManager(retries=False, timeout=10)


def ask(url: str, message: Any = None, **fields: str) -> Any:
    """The JSON that a server answers to a GET with fields, or to a POST with a message."""
    body = None if message is None else json.dumps(message)
    headers = {"content-type": "application/json"}
    answer = POOL.request("GET" if body is None else "POST", url, fields=fields or None, body=body, headers=headers)
    assert answer.status == 200, answer.data
    return json.loads(answer.data)


@contextlib.contextmanager
def alertmanager(folder: Path, port: int | None = None) -> Iterator[str]:
    """An Alertmanager that notifies nobody; its URL. In the same folder and on the same port it is the same again."""
    executable = _executable("prometheus-alertmanager")
    config = _written(folder / "alertmanager.yml", ROUTES)
    url = f"127.0.0.1:{port or processes.free_port()}"
    command = [executable, f"--config.file={config}", f"--storage.path={folder}", f"--web.listen-address={url}"]
    with processes.running([*command, "--cluster.listen-address="], folder / "alertmanager.log", lambda: _ready(url)):
        yield f"http://{url}"


@contextlib.contextmanager
def prometheus(folder: Path, target: str, key_file: Path) -> Iterator[str]:
    """A Prometheus that scrapes ``/metrics`` of a host and port every second with a key; its URL."""
    executable = _executable("prometheus")
    job = {
        "job_name": "telltale",
        "authorization": {"credentials_file": str(key_file)},
        "static_configs": [{"targets": [target]}],
    }
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    config = _written(folder / "prometheus.yml", settings)
    url = f"127.0.0.1:{processes.free_port()}"
    command = [executable, f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address={url}"]
    with processes.running(command, folder / "prometheus.log", lambda: _ready(url)):
        yield f"http://{url}"


def _executable(name: str) -> str:
    return shutil.which(name) or processes.unavailable(f"{name} is not installed; it is the Debian package {name}")


def _written(path: Path, settings: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path


def _ready(address: str) -> bool:
    try:
        return POOL.request("GET", f"http://{address}/-/ready").status == 200
    except urllib3.exceptions.HTTPError:
        return False
