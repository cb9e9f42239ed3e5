"""Real serving stacks from PyPI, each in an environment of its own beside Telltale's."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from processes import unavailable

HERE = Path(__file__).parent
ENVIRONMENTS = Path(__file__).parents[3] / ".cache" / "serving"
INSTALL_SECONDS = 600


def environment(name: str) -> Path:
    """The folder with a stack's commands, installed the first time as ``NAME.txt`` says; skips where it cannot be."""
    wanted = (HERE / f"{name}.txt").read_text("utf-8")
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tests run in several processes
        stamp = folder / "installed.txt"
        if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _install(name, folder)
            stamp.write_text(wanted, "utf-8")
    return folder / "bin"


def _install(name: str, folder: Path) -> None:
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-deps",
    ]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        command = [*pip, "--only-binary", ":all:", "-r", str(HERE / f"{name}.txt")]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        unavailable(f"{name} was not installed within {INSTALL_SECONDS} s")
    except subprocess.CalledProcessError as error:
        unavailable(f"{name} cannot be installed: {error.stderr.decode(errors='replace')[-300:]}")
