"""Loggers across forks, workers and the end of a process: every event once, none lost, none twice."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import Telltale
from processes import free_port, listens, running, wait_until

from telltale_client import Logger

ROOT = Path(__file__).parents[2]
MakeLogger = Callable[..., Logger]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def environment(telltale: Telltale) -> dict[str, str]:
    return {"TELLTALE_URL": telltale.url, "PYTHONPATH": str(ROOT / "client"), "POD_NAME": "pod-1"}


def run(code: str, telltale: Telltale, *arguments: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **environment(telltale)}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=whole, capture_output=True, text=True, check=False, timeout=60)


def test_what_was_logged_last_arrives_when_the_process_ends(telltale: Telltale) -> None:
    code = "from telltale_client import Logger\nfor n in range(2500): Logger.predict(log, {'x': n}, 'yes')"
    done = run(code.replace("for n", "log = Logger('m', '1')\nfor n"), telltale)
    assert (done.returncode, done.stderr) == (0, "")
    assert telltale.rows() == 2500


def test_a_logger_that_nobody_holds_any_more_still_ships(telltale: Telltale) -> None:
    code = "from telltale_client import Logger\nfor n in range(5): Logger('m', str(n)).predict({'x': n}, 'yes')"
    assert run(code, telltale).returncode == 0
    assert telltale.rows() == 5


def test_a_process_that_dies_of_an_exception_ships_first(telltale: Telltale) -> None:
    code = """
from telltale_client import Logger
with Logger('m', '1').timed({'x': 1.0}):
    raise RuntimeError('the model is gone')
"""
    assert run(code, telltale).returncode == 1
    assert telltale.select("SELECT failed, error FROM predictions") == [
        {"failed": True, "error": "RuntimeError: the model is gone"}
    ]


PREFORK = """
import os, sys
from telltale_client import Logger
logger = Logger("m", "1")
for n in range(300):
    logger.predict({"x": n}, "parent")
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        for n in range(200):
            logger.predict({"x": n}, "child")
        assert logger.stats().waiting <= 200
        sys.exit(0)
    children.append(child)
for n in range(100):
    logger.predict({"x": n}, "parent")
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_forked_workers_ship_their_own_events_and_not_their_parents(telltale: Telltale) -> None:
    done = run(PREFORK, telltale)
    assert done.returncode == 0, done.stderr
    counted = telltale.select(
        "SELECT label, count() AS n, uniqExact(prediction_id) AS ids FROM predictions FINAL GROUP BY 1 ORDER BY 1"
    )
    assert counted == [{"label": "child", "n": 600, "ids": 600}, {"label": "parent", "n": 400, "ids": 400}]


POOL = """
import multiprocessing, sys
from telltale_client import Logger
logger = Logger("m", "1")
def score(n):
    return logger.predict({"x": n}, "yes")
if __name__ == "__main__":
    logger.predict({"x": 0}, "yes")
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=score, args=(n,)) for n in range(3)]
    for child in children: child.start()
    for child in children: child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_ship_before_they_end(telltale: Telltale, tmp_path: Path, method: str) -> None:
    file = tmp_path / "score.py"
    file.write_text(POOL)
    command = [sys.executable, str(file), method]
    subprocess.run(command, env={**os.environ, **environment(telltale)}, check=True, timeout=60)
    assert telltale.rows() == 4


def test_a_fork_in_the_middle_of_logging_leaves_the_child_able_to_log(
    telltale: Telltale, make_logger: MakeLogger
) -> None:
    logger, stopped = make_logger(url=telltale.url), threading.Event()

    def serve() -> None:
        while not stopped.wait(0.0002):
            logger.predict({"x": 1.0}, "parent")

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    read, write = os.pipe()
    children = []
    for _ in range(5):
        child = os.fork()
        if not child:
            logger.predict({"x": 2.0}, "child")
            os.write(write, b"y" if logger.flush(20) else b"n")
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    stopped.set()
    for thread in threads:
        thread.join()
    answers = os.read(read, 100)
    os.close(read)
    os.close(write)
    assert answers == b"yyyyy"
    assert logger.flush()
    counted = telltale.select("SELECT countIf(label = 'child') AS n, count() AS rows FROM predictions FINAL")[0]
    assert counted["n"] == 5
    assert counted["rows"] == 5 + logger.stats().delivered


APP = """
import os
from fastapi import FastAPI
from telltale_client import Logger
from telltale_client.fastapi import close_with, logged
logger = Logger("m", "1")
app = FastAPI()
close_with(app, logger)

@app.post("/score")
@logged(logger, features=lambda x: {"x": x}, prediction=lambda answer: answer["label"])
def score(x: float) -> dict[str, str]:
    return {"label": "yes", "worker": str(os.getpid())}
"""


def ask(port: int, n: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", f"/score?x={n}")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_uvicorn_workers_ship_every_answer_once_and_the_last_ones_before_they_end(
    telltale: Telltale, tmp_path: Path
) -> None:
    (tmp_path / "scoring.py").write_text(APP)
    port, answers = free_port(), []
    command = [sys.executable, "-m", "uvicorn", "scoring:app", "--port", str(port), "--workers", "2"]
    command += ["--app-dir", str(tmp_path), "--log-level", "warning"]

    def both_have_answered() -> bool:
        answers.append(ask(port, 0))
        return len(set(answers)) == 2

    with running(command, tmp_path / "log", lambda: listens(port), environment(telltale)) as server:
        wait_until(both_have_answered, "an answer of each worker", 30, pause=0.001)
        answers.extend(ask(port, n) for n in range(60))
        server.stop()
    assert all(b'"label":"yes"' in a for a in answers)
    assert telltale.rows() == len(answers)
