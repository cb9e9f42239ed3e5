"""README's commands do what README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_five_minutes_work_as_written(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## Five minutes")[2].partition("In a notebook")[0]
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    script = commands.replace(".venv/bin/python", sys.executable).replace(
        ".venv/bin/telltale", f"{sys.executable} -m monitor.cli"
    )
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "150"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3000 events taken in, 0 put into dead_letters" in done.stdout
    drift = done.stdout.partition("against the reference")[2]
    assert re.search(r"│ age +│ +│ location", drift)
    assert "0 of 2 columns drifted" in done.stdout
