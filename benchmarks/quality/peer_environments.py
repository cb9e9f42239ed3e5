"""Other tools, each in an environment of its own below ``.cache/peers``, made once with pinned versions.

They do not fit into one environment with each other, nor with this project. What runs inside is a file of
``benchmarks/quality/inside``, which knows the tool, NumPy and nothing of Telltale.

``python -m benchmarks.quality.peer_environments`` makes them all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "peers"
INSIDE = Path(__file__).parent / "inside"
PINNED = {
    "evidently": ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.4.6", "scipy==1.17.1"),
    "nannyml": ("nannyml==0.13.1", "pandas==2.3.3", "numpy==2.4.6", "scipy==1.17.1", "statsmodels==0.15.0"),
    "river": ("river==0.26.1", "numpy==2.4.6"),
}
"""evidently cannot be imported beside pandas 3.1, and NannyML imports statsmodels without asking for it."""
QUIET = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONWARNINGS": "ignore"}
"""Without these two of them report their use to their makers."""


class NoPeerError(Exception):
    """The tool is not here and could not be installed; the message is the reason."""


def installed(name: str) -> bool:
    """Whether the environment is there, complete, and has these versions."""
    stamp = FOLDER / name / "pinned"
    return stamp.is_file() and stamp.read_text().split() == list(PINNED[name])


def make(name: str) -> None:
    """Make the environment unless it is there. Raises NoPeerError."""
    if installed(name):
        return
    home = FOLDER / name
    print(f"installing {', '.join(PINNED[name])} into {home}", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    for command in ([sys.executable, "-m", "venv", str(home)], [*pip, "--no-cache-dir", *PINNED[name]]):
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - this file's own
        if done.returncode:
            raise NoPeerError(f"{name} could not be installed: {' '.join(command[1:4])} ended with {done.returncode}")
    (home / "pinned").write_text("\n".join(PINNED[name]))


def ask(name: str, *arguments: str, timeout: float = 3_600) -> Any:
    """What ``inside/in_NAME.py`` prints as JSON, run in the tool's environment. Raises NoPeerError without one."""
    if not installed(name):
        raise NoPeerError(f"{name} is not installed in {FOLDER / name}")
    command = [str(FOLDER / name / "bin" / "python"), str(INSIDE / f"in_{name}.py"), *arguments]
    done = subprocess.run(  # noqa: S603 - this folder's own
        command, capture_output=True, text=True, check=False, timeout=timeout, env={**os.environ, **QUIET}
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Make all of them; exit 1 where one could not be made."""
    missing = False
    for name in PINNED:
        try:
            make(name)
        except NoPeerError as error:
            print(error, file=sys.stderr)
            missing = True
    sys.exit(missing)


if __name__ == "__main__":
    main()
