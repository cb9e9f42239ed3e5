"""Endpoints of FastAPI and views of Flask log what they answer, and answer what they did before."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from monitor.decode import decode
from monitor.running import listening
from telltale_client import Logger
from telltale_client.batches import Batch, Receipt
from telltale_client.fastapi import close_with, logged

FAR = 4e9
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Kept:
    """A transport that keeps lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def send(self, batch: Batch) -> Receipt:
        self.lines += batch.lines
        return Receipt(len(batch.lines))

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def predictions(self) -> list[dict[str, Any]]:
        return decode(self.lines, FAR).predictions["production", "m"]


class Person(BaseModel):
    age: float
    plan: str


def application(logger: Logger) -> FastAPI:
    app = FastAPI()
    close_with(app, logger)

    def watched(**more: Any) -> Callable[[Endpoint], Endpoint]:
        return logged(logger, features=lambda person: person, **more)

    @app.post("/plain")
    @watched(prediction=lambda answer: answer["label"], prediction_id=lambda person: f"{person.plan}-1")
    def plain(person: Person) -> dict[str, str]:
        return {"label": "yes" if person.age > 30 else "no"}

    @app.post("/async")
    @watched()
    async def coroutine(person: Person) -> float:
        return person.age / 100

    @app.post("/refuses")
    @watched()
    def refuses(person: Person) -> float:  # noqa: ARG001 - its name is part of the interface
        raise HTTPException(404, "no such person")

    @app.post("/fails")
    @watched()
    def fails(person: Person) -> float:
        raise RuntimeError(f"no model for {person.plan}")

    @app.post("/odd")
    @watched(prediction=lambda answer: answer["nothing like this"])
    def odd(person: Person) -> float:
        return person.age

    return app


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[Callable[[str, str], tuple[int, bytes]]]:
    with listening("127.0.0.1", 0) as (listener, url):
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def post(path: str, body: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=20)
            with contextlib.closing(connection):
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.read()

        try:
            yield post
        finally:
            server.should_exit = True
            thread.join(20)


def test_endpoints_of_fastapi_log_what_they_answer_and_the_end_of_the_application_ships_it() -> None:
    kept = Kept()
    logger = Logger("m", "1", server="pod-1", transport=kept)
    body = '{"age": 41.5, "plan": "vip"}'
    with served(application(logger)) as post:
        assert post("/plain", body) == (200, b'{"label":"yes"}')
        assert post("/async", body) == (200, b"0.415")
        assert post("/refuses", body) == (404, b'{"detail":"no such person"}')
        assert post("/fails", body)[0] == 500
        assert post("/odd", body) == (200, b"41.5")
        assert post("/plain", '{"age": "young"}')[0] == 422
    events = kept.predictions()
    assert [(e["prediction"], e.get("error")) for e in events] == [
        ("yes", None),
        (0.415, None),
        (None, "RuntimeError: no model for vip"),
        (None, None),
    ]
    assert events[0]["prediction_id"] == "vip-1"
    assert all(e["features"] == {"age": 41.5, "plan": "vip"} and 0 < e["latency_ms"] < 20_000 for e in events)
    assert logger.stats().failed == 1


def test_fastapi_sees_the_endpoint_as_it_was_written() -> None:
    schema = application(Logger("m", "1")).openapi()
    assert "Person" in schema["components"]["schemas"]


def test_an_application_that_ends_badly_ships_what_it_logged_all_the_same() -> None:
    kept = Kept()
    logger = Logger("m", "1", server="pod-1", transport=kept)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        raise RuntimeError("the database is gone")

    app = FastAPI(lifespan=lifespan)
    close_with(app, logger)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            logger.predict({"x": 1.0}, "yes")

    with pytest.raises(RuntimeError, match="the database is gone"):
        asyncio.run(run())
    assert [e["prediction"] for e in kept.predictions()] == ["yes"]


def test_async_views_of_flask_log_what_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        flask = pytest.importorskip("flask", reason="Flask is not installed")
        pytest.importorskip("asgiref", reason="Flask is not installed with its async extra")
        app = flask.Flask("scoring")
        called = app.app_context
    except pytest.skip.Exception:  # then with what has Flask's rule: coroutines are run, anything else is left as it is
        called = contextlib.nullcontext
        current = SimpleNamespace(ensure_sync=lambda f: _run_to_the_end(f) if inspect.iscoroutinefunction(f) else f)
        monkeypatch.setitem(sys.modules, "flask", SimpleNamespace(current_app=current))
        monkeypatch.delitem(sys.modules, "telltale_client.flask", raising=False)
    logged_view: Any = importlib.import_module("telltale_client.flask").logged
    kept = Kept()
    logger = Logger("m", "1", server="pod-1", transport=kept)

    async def score(plan: str) -> Any:
        await asyncio.sleep(0)
        return {"score": len(plan) / 10}

    view = logged_view(logger, features=lambda plan: {"plan": plan}, prediction=lambda answer: answer["score"])(score)
    with called():
        assert view(plan="vip") == {"score": 0.3}
    logger.close()
    monkeypatch.delitem(sys.modules, "telltale_client.flask")
    assert [(e["features"], e["prediction"]) for e in kept.predictions()] == [({"plan": "vip"}, 0.3)]


def _run_to_the_end(view: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **values: asyncio.run(view(**values))


def test_views_of_flask_log_what_they_answer() -> None:
    flask = pytest.importorskip("flask", reason="Flask is not installed")
    from telltale_client.flask import logged as logged_view

    kept = Kept()
    logger = Logger("m", "1", server="pod-1", transport=kept)
    app = flask.Flask("scoring")

    @logged_view(logger, features=lambda plan: {**flask.request.json, "plan": plan}, prediction=lambda a: a["score"])
    def score(plan: str) -> Any:
        if plan == "none":
            flask.abort(404)
        if plan == "broken":
            raise RuntimeError("no model")
        return {"score": flask.request.json["age"] / 100}

    app.add_url_rule("/score/<plan>", view_func=score, methods=["POST"])
    client = app.test_client()
    answers = [client.post(f"/score/{plan}", json={"age": 40}).status_code for plan in ("vip", "none", "broken")]
    assert answers == [200, 404, 500]
    logger.close()
    assert [(e["features"], e["prediction"], e.get("error")) for e in kept.predictions()] == [
        ({"age": 40, "plan": "vip"}, 0.4, None),
        ({"age": 40, "plan": "broken"}, None, "RuntimeError: no model"),
    ]
