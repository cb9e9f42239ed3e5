"""Running the service: which rooms, the server around the API, and the note that lets other commands find it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from monitor.api import create_app
from monitor.config import Config, ConfigError
from monitor.remote import RemoteService
from monitor.schedule import Schedule
from monitor.service import Service
from monitor.store import StoreBusyError

NOTE = "service.json"
PROBE_SECONDS = 60.0
PROGRESS_SECONDS = 5.0
OVERDUE_SECONDS = 5.0
REFRESH_MODELS_SECONDS = 10.0
REFRESH_ALERTS_SECONDS = 60.0
JUDGE_SECONDS = 15.0
FOLLOW_SECONDS = 10.0
DELIVER_SECONDS = 2.0
AUDIT_SECONDS = 3600.0
LOOK_SECONDS = 60.0
DUPLICATES_SECONDS = 3600.0


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and its URL. Port 0 takes a free one."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; --port names another") from None
        yield listener, f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def serve(service: Service, listener: socket.socket, url: str) -> Iterator[None]:
    """The API on a thread, as long as the context lasts; other commands find it by a note in the data folder.

    The folder belongs to the embedded store; on a server store commands need no other process.
    """
    settings = uvicorn.Config(
        create_app(service), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api", daemon=True)
    thread.start()
    note = service.config.store.path / NOTE if service.config.store.clickhouse is None else None
    if note:
        note.write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")
    try:
        yield
    finally:
        if note:
            note.unlink(missing_ok=True)
        server.should_exit = True
        thread.join(timeout=10)


@contextlib.contextmanager
def consuming(service: Service) -> Iterator[None]:
    """Kafka being read on a thread, as long as the context lasts."""
    from monitor.intake import run_intake
    from monitor.sources.kafka import open_kafka

    spec = service.config.sources.kafka
    if spec is None:
        yield
        return
    service.metrics.registry.register(service.metrics.source_up)
    stopped = threading.Event()
    arguments = (lambda: open_kafka(spec), service, service.metrics, stopped)
    named = {"now": service.clock.now}
    thread = threading.Thread(target=run_intake, args=arguments, kwargs=named, name="kafka", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=30)


@contextlib.contextmanager
def scheduled(service: Service, *, judge: bool) -> Iterator[Schedule]:
    """The scheduled jobs, as long as the context lasts."""
    schedule = Schedule(service.clock, service.metrics)
    if service.config.sources.kafka is not None:
        schedule.every(PROGRESS_SECONDS, "progress", service.write_progress)
    schedule.every(REFRESH_MODELS_SECONDS, "refresh_models", service.refresh_models)
    schedule.every(OVERDUE_SECONDS, "overdue", service.foreign.take_overdue)
    schedule.every(LOOK_SECONDS, "look", service.vitals.look)
    if judge:
        schedule.every(DUPLICATES_SECONDS, "count_duplicates", service.vitals.count_duplicates)
        schedule.every(PROBE_SECONDS, "probe", service.probe)
        schedule.every(JUDGE_SECONDS, "judge", service.judge_due)
        schedule.every(FOLLOW_SECONDS, "follow", service.follow)
        schedule.every(DELIVER_SECONDS, "deliver", service.deliver)
        schedule.every(REFRESH_ALERTS_SECONDS, "refresh_alerts", service.refresh_alerts)
        schedule.every(AUDIT_SECONDS, "audit", service.audit_lately)
    schedule.start()
    try:
        yield schedule
    finally:
        schedule.stop()


def open_service(config: Config, announce: Callable[[str], None] = lambda _: None) -> Service | RemoteService:
    """The service on the configured data folder: this process's own, or the one that already runs there.

    Raises StoreBusyError when something holds the folder that does not answer.
    """
    try:
        return Service(config)
    except StoreBusyError as busy:
        url = running_url(config.store.path)
        if url is None:
            raise StoreBusyError(f"{busy}, which runs no API there; wait until it has finished") from None
        announce(f"Asking the service that runs at {url}")
        return RemoteService(url)


def running_url(folder: Path) -> str | None:
    """Where the service on a data folder listens, if one does."""
    try:
        note = json.loads((folder / NOTE).read_text("utf-8"))
        os.kill(note["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return str(note["url"])


def run_until_stopped(
    config: Config, host: str, port: int, only: str | None, public_url: str | None, announce: Callable[[str], None]
) -> None:
    """Run the rooms that were asked for until SIGINT or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with contextlib.ExitStack() as running:
        listener, url = running.enter_context(listening(host, port))
        service = running.enter_context(Service(config, callback_base=public_url or url))
        running.enter_context(serve(service, listener, url))
        if only in (None, "ingest"):
            running.enter_context(consuming(service))
        running.enter_context(scheduled(service, judge=only in (None, "judge")))
        announce(f"Telltale listens at {url}; the page is at {url}/")
        stopped.wait()
        announce("Stopping")
