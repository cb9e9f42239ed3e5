"""What the image installs: a wheel of exactly what the Dockerfile copies, which needs no checkout beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("alerts", "dashboards", "detectors", "monitor")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def copied_by_the_dockerfile() -> list[str]:
    """What the builder copies for the wheel, after it has installed what is locked."""
    lines = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    return [name for line in lines for name in line.split() if not name.startswith("requirements/")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Telltale in it, built from a copy, because building leaves files beside the sources."""
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    for name in copied_by_the_dockerfile():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, sources / name)
    how = ("--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--target", str(target))
    subprocess.run([*PIP, "install", *how, str(sources)], check=True, capture_output=True)
    return target


def test_every_file_of_the_rooms_is_installed(installed: Path) -> None:
    wanted = {
        file.relative_to(ROOT)
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {file.suffix for file in wanted} >= {".py", ".sql", ".css", ".js"}
    there = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert sorted(map(str, wanted - there)) == []
    assert Path("telltale.py") in there


def test_nothing_but_telltale_is_installed(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {*ROOMS, "telltale.py", "bin"}


def test_the_command_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "telltale.yaml", tmp_path)
    environment = {"PYTHONPATH": str(installed)}
    code = "import monitor.cli, monitor.store; print(monitor.__file__, len(list(monitor.store.migrations())))"
    where = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True)
    migrations = len(list((ROOT / "monitor/store/migrations").glob("*.sql")))
    assert where.split() == [str(installed / "monitor" / "__init__.py"), str(migrations)]
    command = [sys.executable, str(installed / "bin" / "telltale"), "check"]
    told = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert told == "telltale.yaml is right: 1 models, 5 policies\n"
