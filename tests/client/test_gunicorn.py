"""Real gunicorn with two workers, before which a logger was made and used, and real Flask, with async views."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import serving
from faulty import Telltale
from processes import free_port, listens, running, wait_until

CLIENT = Path(__file__).parents[2] / "client"
APP = """
import os
from flask import Flask
from telltale_client import Logger
from telltale_client.flask import logged

logger = Logger("m", "1")
logger.predict({"x": -1.0}, "parent")
app = Flask("scoring")

@app.get("/score/<float:x>")
@logged(logger, features=lambda x: {"x": x}, prediction=lambda answer: answer["label"])
def score(x):
    return {"label": "yes", "worker": os.getpid()}

@app.get("/later/<float:x>")
@logged(logger, features=lambda x: {"x": x}, prediction=lambda answer: answer["label"])
async def later(x):
    return {"label": "later", "worker": os.getpid()}
"""


def ask(port: int, path: str) -> tuple[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        return answer["label"], answer["worker"]
    finally:
        connection.close()


def test_workers_of_gunicorn_ship_every_answer_once_and_the_last_ones_before_they_end(
    telltale: Telltale, tmp_path: Path
) -> None:
    python = serving.environment("pods") / "python"
    (tmp_path / "scoring.py").write_text(APP)
    port = free_port()
    command = [str(python), "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    command += ["--chdir", str(tmp_path), "--log-level", "warning", "scoring:app"]
    given = {"TELLTALE_URL": telltale.url, "PYTHONPATH": str(CLIENT), "POD_NAME": "pod-1"}
    answers: list[tuple[str, int]] = []

    def both_have_answered() -> bool:
        answers.append(ask(port, "/score/1.0"))
        return len({worker for _, worker in answers}) == 2

    with running(command, tmp_path / "log", lambda: listens(port), given) as server:
        wait_until(both_have_answered, "an answer of each worker", 60, pause=0.001)
        answers.extend(ask(port, f"/{'later' if n % 2 else 'score'}/{n}.5") for n in range(40))
        server.stop()
    counted = telltale.select(
        "SELECT label, count() AS n, uniqExact(prediction_id) AS ids FROM predictions FINAL GROUP BY 1 ORDER BY 1"
    )
    yes = sum(label == "yes" for label, _ in answers)
    assert counted == [
        {"label": "later", "n": 20, "ids": 20},
        {"label": "parent", "n": 1, "ids": 1},
        {"label": "yes", "n": yes, "ids": yes},
    ]
