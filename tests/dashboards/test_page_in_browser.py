"""The page in a real browser: its policy lets its own style and script work, and the script brings it up to date."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
)


def sample() -> dict[str, Any]:
    overview: dict[str, Any] = json.loads(Path(__file__).with_name("overview.json").read_text("utf-8"))
    return overview


@pytest.fixture
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs one of {', '.join(BROWSERS)}")
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    return found


@contextmanager
def serving(*pages: str) -> Iterator[str]:
    """An address that answers with one page after the other, and then with the last."""
    left = list(pages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def visit(browser: str, address: str, folder: Path, seconds: int) -> tuple[str, str]:
    """The document after so many seconds of the browser's own, fast clock; and what the browser complained about."""
    done = subprocess.run(
        [
            *(browser, *QUIET, f"--user-data-dir={folder}", f"--virtual-time-budget={seconds * 1000}"),
            *("--dump-dom", address),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(complaints)


def test_the_page_comes_up_to_date_and_keeps_what_was_opened(browser: str, tmp_path: Path) -> None:
    calm, alarmed = render_page(sample() | {"firing": []}), render_page(sample())
    opened = re.sub(r'<details id="(\w+)">', r'<details id="\1" open>', calm, count=1)
    assert opened != calm
    with serving(opened, alarmed) as address:
        document, complaints = visit(browser, address, tmp_path, 8)
    assert complaints == ""
    assert "2 alerts are firing" in document
    assert "Nothing is firing" not in document
    assert "<title>2 firing · Telltale</title>" in document
    assert document.count("<main>") == document.count("<header>") == 1
    assert len(re.findall(r'<details id="\w+" open', document)) == 1


def test_hostile_names_run_nothing(browser: str, tmp_path: Path) -> None:
    overview = sample()
    bad = "</title></svg><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    overview["models"][0]["model"] = bad
    for picture in overview["models"][0]["pictures"]:
        picture["labels"] = [bad for _ in picture["labels"]]
        picture["feature"] = bad
    with serving(render_page(overview)) as address:
        document, complaints = visit(browser, address, tmp_path, 1)
    assert complaints == ""
    assert "<title>2 firing · Telltale</title>" in document
    assert "<img" not in document
    assert document.count("<script>") == 1
    assert "onerror=" in document


def test_an_answer_that_fails_is_said(browser: str, tmp_path: Path) -> None:
    with serving(render_page(sample()), "<!doctype html><title>a proxy's page</title>") as address:
        document, _ = visit(browser, address, tmp_path, 8)
    assert "Telltale does not answer" in document
    assert "2 alerts are firing" in document
