"""The HTTP API and the page. It translates; what is done is in ``service.py``."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import prometheus_client
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from alerts.ledger import BadCallbackError, LedgerError, UnknownActionError, WrongTokenError
from dashboards.page import render_page
from detectors.layout import LayoutError
from monitor.adapters import FullError, Sender
from monitor.audit import AuditError
from monitor.config import ApiKey, ConfigError, Scope
from monitor.events import json_schema
from monitor.folding import GoneError
from monitor.foreign import UnknownAdapterError
from monitor.overview import overview
from monitor.reference import TableError, read_table
from monitor.registry import UnknownModelError
from monitor.replay import ReplayError
from monitor.secrets import read_secret
from monitor.service import Service
from monitor.store import StoreError
from monitor.tables import BadTableError, LargeTableError

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _in_reach(at: datetime) -> datetime:
    """Times that the store can hold, with room for the longest windows around them."""
    if not EARLIEST <= at < LATEST:
        raise ValueError(f"the year must be from {EARLIEST.year} to {LATEST.year - 1}")
    return at


Time = Annotated[AwareDatetime, AfterValidator(_in_reach)]
At = Annotated[Time | None, Query(description="RFC 3339 with an offset; now if left out.")]
Environment = Annotated[str, Query(description="Part of every key.")]


@dataclass(frozen=True)
class Caller:
    """Who calls, and what they may do. No scopes are needed where no keys are configured."""

    name: str
    scopes: frozenset[Scope]
    models: frozenset[str]

    def may(self, scope: Scope, model: str | None = None) -> bool:
        """Whether the caller has a scope, for a model if one is named. ``admin`` includes the others."""
        return bool({scope, "admin"} & self.scopes) and (not self.models or model is None or model in self.models)


MAX_RULES_BYTES = 1024 * 1024
MAX_TABLE_BYTES = 1024 * 1024 * 1024
ANYONE = Caller("anyone", frozenset({"admin"}), frozenset())


def check_exposure(host: str, keys: tuple[ApiKey, ...]) -> None:
    """Refuse to listen where others can reach it without keys. Raises ConfigError."""
    if not _is_loopback(host) and not keys:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and no api_keys are configured; "
            "add api_keys to the configuration, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class SiteGuard:
    """Refuses what a page of another site makes a browser send.

    That is a POST that comes from another site and, where no keys are configured, any request to a name that was
    made to point at this machine (DNS rebinding).
    """

    app: ASGIApp
    keyless: bool

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer the request, or hand it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Connection) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.keyless and not _is_loopback(_host_name(host)):
            told = f"without api_keys only requests to localhost or 127.0.0.1 are answered, not to {host[:100]!r}"
            return JSONResponse({"detail": told}, 421)
        if scope["method"] == "POST" and origin is not None and origin.partition("://")[2].lower() != host.lower():
            return JSONResponse({"detail": f"a page at {origin[:100]!r} may not send requests here"}, 403)
        return None


def _host_name(host: str) -> str:
    """The name or address in a ``Host`` header, without the port; empty when there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass(frozen=True)
class Access:
    """Who may call what. Without configured keys everybody may, and the service only listens on loopback."""

    callers: tuple[tuple[bytes, Caller], ...]

    def caller(self, authorization: Annotated[str, Header()] = "") -> Caller:
        """Who sent this key."""
        if not self.callers:
            return ANYONE
        key = _sent_key(authorization)
        found = [c for secret, c in self.callers if key and hmac.compare_digest(secret, key)]
        if not found:
            asks = {"WWW-Authenticate": 'Basic realm="Telltale: any name, the API key as password"'}
            raise HTTPException(401, "send an API key as 'Authorization: Bearer KEY'", asks)
        return found[0]

    def needs(self, scope: Scope, *, all_models: bool = False) -> Any:
        """A dependency that lets only callers with a scope through, for the model in the path if there is one.

        Where the answer tells of all models, ``all_models`` keeps out callers that are bound to some.
        """
        known = Depends(self.caller)

        def check(request: Request, who: Caller = known) -> Caller:
            request.state.caller = who
            model = request.path_params.get("model")
            if not who.may(scope, model):
                place = f" for model {model!r}" if model else ""
                raise HTTPException(403, f"the key {who.name!r} lacks the scope {scope!r}{place}")
            if all_models and who.models:
                bound = ", ".join(sorted(who.models))
                raise HTTPException(403, f"this tells of all models; the key {who.name!r} is only for {bound}")
            return who

        return Depends(check)


def create_app(service: Service) -> FastAPI:
    """The application around one service."""
    app = FastAPI(title="Telltale", version="1", redoc_url=None)
    access = Access(tuple(_callers(service.config.api_keys)))
    for routes in (_intake, _adapters, _questions, _care, _tables, _operation):
        app.include_router(routes(service, access))
    app.add_middleware(SiteGuard, keyless=not service.config.api_keys)
    app.add_exception_handler(UnknownModelError, _unknown_model)
    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, _answer_with(status))
    return app


def _intake(service: Service, access: Access) -> APIRouter:
    """Events, and what becomes of actions."""
    routes = APIRouter()
    ingest = access.needs("ingest")

    @routes.post("/v1/events")
    async def events(
        request: Request,
        idempotency_key: Annotated[str, Header(max_length=200)] = "",
        source: Annotated[str, Query(pattern="^(http|file)$")] = "http",
        who: Caller = ingest,
    ) -> Response:
        """An object, an array, NDJSON or an Arrow stream. Answers when all is durable; again it changes nothing."""
        body = await _body(request, service.config.sources.http.max_body_bytes)
        content_type = request.headers.get("content-type", "")
        receipt = await run_in_threadpool(
            service.take, body, source, idempotency_key, who.name, who.models, content_type
        )
        return JSONResponse(receipt.to_dict())

    @routes.get("/v1/events/schema")
    def events_schema() -> Response:
        """The wire contract as JSON Schema."""
        return Response(json_schema(), media_type="application/schema+json")

    @routes.post("/v1/actions/{action_id}/events")
    async def action_event(
        action_id: str, request: Request, authorization: Annotated[str, Header()] = ""
    ) -> dict[str, bool]:
        """What became of an action, told by whoever carries it out. The bearer token came with the request to act."""
        body = await _body(request, 64 * 1024)
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, 'the body is not JSON; send {"state": "started"}') from None
        token = authorization.partition(" ")[2]
        await run_in_threadpool(service.desk.callback, action_id, token, event, service.clock.now())
        return {"recorded": True}

    return routes


class Told(BaseModel):
    """What the sender says beside a foreign format, which may not say it."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    version: str = ""
    server: str = ""
    environment: str = ""
    source: Annotated[str, Field(pattern="^(|file)$")] = ""


def _adapters(service: Service, access: Access) -> APIRouter:
    """What other serving stacks log."""
    routes = APIRouter()
    ingest = access.needs("ingest")

    @routes.post("/v1/adapters/{adapter}")
    async def foreign(
        adapter: str,
        request: Request,
        told: Annotated[Told, Query()],
        idempotency_key: Annotated[str, Header(max_length=200)] = "",
        who: Caller = ingest,
    ) -> Response:
        """A log of another serving stack. 200: it is durable. 202: it waits in memory for its other half."""
        body = await _body(request, service.config.sources.http.max_body_bytes)
        sender = Sender(**told.model_dump(exclude={"source"}), caller=who.name, allowed=who.models)
        headers = dict(request.headers)
        receipt = await run_in_threadpool(
            service.foreign.take, adapter, body, headers, sender, idempotency_key, told.source
        )
        if receipt is None:
            return JSONResponse({"accepted": 0, "rejected": []}, 202)
        return JSONResponse(receipt.to_dict())

    return routes


def _questions(service: Service, access: Access) -> APIRouter:
    """What people and pipelines ask about models, servers and alerts."""
    routes = APIRouter()
    read, read_all = access.needs("read"), access.needs("read", all_models=True)

    @routes.get("/v1/models")
    def models(who: Caller = read) -> list[dict[str, Any]]:
        """The models, and what is known of each."""
        return [m for m in service.models() if who.may("read", m["model"])]

    @routes.get("/v1/models/{model}/fleet", dependencies=[read])
    def fleet(model: str, at: At = None, environment: Environment = "production") -> list[dict[str, Any]]:
        """Which version served on which server."""
        return service.fleet(model, at, environment)

    @routes.get("/v1/models/{model}/budget", dependencies=[read])
    def budget(model: str, environment: Environment = "production") -> dict[str, Any]:
        """Where the model's budget of false alarms goes."""
        return service.budget(model, environment)

    @routes.get("/v1/models/{model}/findings", dependencies=[read])
    def findings(
        model: str,
        since: At = None,
        limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
        environment: Environment = "production",
    ) -> list[dict[str, Any]]:
        """What was measured, newest windows first."""
        return service.findings(model, since, limit, environment)

    @routes.get("/v1/servers", dependencies=[read_all])
    def servers(at: At = None, environment: Environment = "production") -> list[dict[str, Any]]:
        """Every server, what serves there, its last health checks, and what is known of its clock."""
        return service.servers(at, environment)

    @routes.get("/v1/alerts", dependencies=[read_all])
    def alerts(
        after: Annotated[int, Query(ge=0, le=2**53)] = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 500
    ) -> dict[str, Any]:
        """What is firing now, and the time line."""
        return service.alerts(after, limit)

    @routes.get("/v1/status", dependencies=[read_all])
    def status() -> dict[str, Any]:
        """What is kept, and what goes on."""
        return service.status()

    @routes.post("/v1/models/{model}/evaluate", dependencies=[access.needs("admin")])
    def evaluate(model: str, at: At = None, environment: Environment = "production") -> dict[str, Any]:
        """Judge the windows that end at a time. Nothing is sent to anyone."""
        return service.evaluate(model, at, environment)

    @routes.post("/v1/models/{model}/replay", dependencies=[read])
    async def replay(
        model: str, request: Request, start: Time, end: Time, environment: Environment = "production"
    ) -> dict[str, Any]:
        """What the policies, or those in the body, would have made of a span of the past. Nothing is kept or sent.

        The body is empty, or has ``models`` and ``policies`` as a configuration file has them, as JSON.
        """
        other = await _body(request, MAX_RULES_BYTES)
        return await run_in_threadpool(service.replay, model, start, end, environment, other)

    return routes


def _care(service: Service, access: Access) -> APIRouter:
    """Looking after what came in. Dead letters hold whatever was sent, so only those who may do all may see them."""
    routes = APIRouter(dependencies=[access.needs("admin", all_models=True)])

    @routes.post("/v1/audit")
    def audit(start: At = None, end: At = None, *, repair: bool = False) -> dict[str, Any]:
        """Hold what is kept against what was counted when it came in; repair what can be, if asked to."""
        return service.audit(start, end, repair=repair)

    @routes.get("/v1/dead-letters")
    def dead_letters() -> list[dict[str, Any]]:
        """How many lines were refused, by source and reason, without those that were taken in since."""
        return service.dead_letter_groups()

    @routes.get("/v1/dead-letters/lines")
    def lines(reason: str = "", limit: Annotated[int, Query(ge=1, le=10_000)] = 20) -> list[dict[str, Any]]:
        """The latest of them, with what they held."""
        return service.dead_letter_lines(reason, limit)

    @routes.post("/v1/models/{model}/forget")
    def forget(
        model: str, prediction_id: str = "", entity_id: str = "", environment: Environment = "production"
    ) -> dict[str, int]:
        """Remove the rows and labels of one prediction, or of all about somebody. Profiles and findings stay."""
        if bool(prediction_id) == bool(entity_id):
            raise HTTPException(422, "name either prediction_id or entity_id")
        return service.forget(model, prediction_id, entity_id, environment)

    @routes.post("/v1/dead-letters/replay")
    def replay(reason: str = "") -> dict[str, int]:
        """Take in those that the rules allow by now."""
        return service.replay_dead_letters(reason)

    return routes


def _tables(service: Service, access: Access) -> APIRouter:
    """Tables in and out."""
    routes = APIRouter()

    @routes.post("/v1/models/{model}/reference", dependencies=[access.needs("admin")])
    async def reference(
        model: str,
        request: Request,
        name: Annotated[str, Query(pattern=r"\.(parquet|csv|ndjson|jsonl)$")],
        version: str = "",
        environment: Environment = "production",
    ) -> dict[str, Any]:
        """Register a table (the body; its format by the name) as what the model is compared with."""
        body = await _body(request, MAX_TABLE_BYTES)

        def register() -> dict[str, Any]:
            with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
                file.write(body)
                file.flush()
                table = read_table(Path(file.name))
            return service.register_reference(model, table, name, version, environment)

        return await run_in_threadpool(register)

    @routes.get("/v1/models/{model}/export", dependencies=[access.needs("read")])
    def export(model: str, start: Time, end: Time, environment: Environment = "production") -> Response:
        """The kept feature rows of a span, as Parquet."""
        return Response(service.export(model, start, end, environment), media_type="application/vnd.apache.parquet")

    return routes


def _operation(service: Service, access: Access) -> APIRouter:
    """What machines and passers-by look at."""
    routes = APIRouter()
    read_all = access.needs("read", all_models=True)

    @routes.get("/healthz")
    def healthz() -> PlainTextResponse:
        """The process is alive."""
        return PlainTextResponse("ok\n")

    @routes.get("/readyz")
    def readyz() -> PlainTextResponse:
        """The store and the ledger answer."""
        try:
            service.check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the answer is "not ready"
            return PlainTextResponse(f"not ready: {type(error).__name__}\n", 503)
        return PlainTextResponse("ready\n")

    @routes.get("/metrics", dependencies=[read_all])
    def metrics() -> Response:
        """For Prometheus."""
        text = prometheus_client.generate_latest(service.metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @routes.get("/", dependencies=[read_all])
    def page() -> HTMLResponse:
        """Fleet, findings with pictures, and alerts."""
        return HTMLResponse(render_page(overview(service)))

    return routes


def _sent_key(authorization: str) -> bytes:
    """The key in a header: as bearer, or as the password that a browser asks for."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise HTTPException(413, f"the body has more than {limit} bytes; send smaller batches")
    return bytes(body)


def _callers(keys: tuple[ApiKey, ...]) -> list[tuple[bytes, Caller]]:
    return [
        (read_secret(k.key_env, k.key_file).encode(), Caller(k.name, frozenset(k.scopes), frozenset(k.models)))
        for k in keys
    ]


_STATUS: Mapping[type[Exception], int] = {
    ConfigError: 422,
    ReplayError: 422,
    UnknownActionError: 404,
    UnknownAdapterError: 404,
    FullError: 503,
    WrongTokenError: 401,
    BadCallbackError: 400,
    LayoutError: 422,
    GoneError: 410,
    TableError: 422,
    BadTableError: 400,
    LargeTableError: 413,
    StoreError: 503,
    LedgerError: 503,
    AuditError: 409,
}


def _unknown_model(request: Request, error: Exception) -> Response:
    """The message names the models there are, which is not for callers that are bound to some."""
    bound = request.state.caller.models
    return JSONResponse({"detail": "the model is not known in this environment" if bound else str(error)}, 404)


def _answer_with(status: int) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status)

    return answer
