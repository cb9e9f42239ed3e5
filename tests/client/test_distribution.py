"""What pods install: the package alone, which needs nothing but Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "client"


def test_the_installed_client_needs_nothing_beside_it(tmp_path: Path) -> None:
    sources, target = tmp_path / "sources", tmp_path / "installed"
    shutil.copytree(CLIENT, sources, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-build-isolation")
    subprocess.run([*pip, "--no-index", "--no-compile", "--target", str(target), str(sources)], check=True)
    wanted = {f.name for f in (CLIENT / "telltale_client").iterdir() if f.is_file()}
    assert {f.name for f in (target / "telltale_client").iterdir()} == wanted
    assert "py.typed" in wanted
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import telltale_client as t; print(t.Logger('m', '1').predict())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(target)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert len(done.stdout.strip()) > 16
