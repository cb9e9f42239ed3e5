"""The command line. Each command loads only what it needs, so that ``--help`` is quick."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from monitor.cli_dashboards import dashboard_commands
from monitor.cli_dead_letters import dead_letter_commands
from monitor.cli_replay import add_replay
from monitor.cli_scenarios import add_test

if TYPE_CHECKING:
    from monitor.config import Config, ReferenceSpec
    from monitor.remote import RemoteService
    from monitor.service import Service

DEFAULT_CONFIG = Path("telltale.yaml")
IMPORT_CHUNK_BYTES = 8 * 1024 * 1024
FAILED = 2

ABOUT = "Watches models in production: which version serves where, whether it still holds, and what to do if not."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=ABOUT)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", envvar="TELLTALE_CONFIG", help="The configuration file.")]
At = Annotated[str | None, typer.Option("--at", help="RFC 3339 with an offset, such as 2026-01-31T00:00Z.")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Part of every key.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    config: ConfigPath = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(help="Where to listen; off loopback API keys are needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="TELLTALE_PORT", min=0, max=65535, help="0 takes a free one.")] = 8300,
    only: Annotated[
        Literal["ingest", "judge", "api"] | None,
        typer.Option(help="Run one room: ingest reads Kafka, judge judges and sends, api answers."),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(envvar="TELLTALE_PUBLIC_URL", help="Where CI can reach this service, for its reports.")
    ] = None,
) -> None:
    """Run the service: events in, windows judged, alerts out, the API and the page."""
    from monitor.api import check_exposure
    from monitor.logs import configure
    from monitor.running import run_until_stopped

    configure()
    loaded = _load(config)
    check_exposure(host, loaded.api_keys)
    run_until_stopped(loaded, host, port, only, public_url, _say)


@app.command()
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Check the configuration file."""
    from monitor.config_file import load
    from monitor.secrets import missing_secrets

    loaded = load(config)
    for missing in missing_secrets(loaded):
        _say(f"warning: {missing}")
    print(f"{config} is right: {len(loaded.models)} models, {len(loaded.policies)} policies")


@app.command(name="import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Events as NDJSON, Parquet or Arrow; or a folder of BentoML's monitoring.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    format_: Annotated[
        Literal["ndjson", "bentoml"], typer.Option("--format", help="ndjson: events, also as tables.")
    ] = "ndjson",
    model: Annotated[str, typer.Option(help="bentoml: the model, if not called as the monitor.")] = "",
    version: Annotated[str, typer.Option(help="bentoml: the version, if it is not the bento's.")] = "",
    server: Annotated[str, typer.Option(help="bentoml: the server that wrote it.")] = "",
    environment: Annotated[str, typer.Option("--environment", "-e", help="bentoml: part of every key.")] = "",
) -> None:
    """Take a file of events in. Doing it again changes nothing."""
    from rich.markup import escape

    told = {"model": model, "version": version, "server": server, "environment": environment}
    total, answers = _to_import(file, format_, told)
    accepted = rejected = 0
    with _service(config) as service, _progress() as progress:
        task = progress.add_task(f"Importing {escape(file.name)}", total=total)
        for done, answer in answers(service):
            progress.update(task, completed=done)
            accepted += answer["accepted"]
            rejected += len(answer["rejected"])
            for line in answer["rejected"][: max(0, 10 - rejected + len(answer["rejected"]))]:
                _say(f"  line {line['line']}: {line['reason']}")
    print(f"{accepted} events taken in, {rejected} put into dead_letters")


def _to_import(file: Path, format_: str, told: dict[str, str]) -> tuple[int, Callable[[Any], Any]]:
    """How many bytes there are to import, and what takes them in with a service."""
    from monitor.adapters import Sender
    from monitor.adapters.bentoml import data_files, import_folder
    from monitor.service import import_file
    from monitor.table_files import import_table, is_table_file

    if format_ == "ndjson":
        if not file.is_file():
            _fail(f"{file}: there is no such file")
        if given := [name for name, value in told.items() if value]:
            _fail(f"--{given[0]} is for --format bentoml; the events of a file say it themselves")
        size = file.stat().st_size
        if is_table_file(file):
            return size, lambda service: import_table(service, file)
        return size, lambda service: import_file(service, file, IMPORT_CHUNK_BYTES)
    found = data_files(file)
    if not found:
        _fail(f"{file}: there is no data/data.*.log below it; name the folder that BentoML's monitoring writes to")
    if not told["server"]:
        _fail("--server is missing: BentoML's files do not say which server wrote them")
    total = sum(path.stat().st_size for path in found)
    return total, lambda service: import_folder(service, file, Sender.of(told), IMPORT_CHUNK_BYTES)


@app.command()
def reference(
    model: ModelName,
    file: Annotated[Path, typer.Argument(help="A Parquet, CSV or NDJSON file, a column per feature.")],
    config: ConfigPath = DEFAULT_CONFIG,
    version: Annotated[str, typer.Option(help="The version it belongs to; all versions if left out.")] = "",
    environment: Environment = "production",
) -> None:
    """Register a file as what a model's traffic is compared with."""
    with _service(config) as service, _working(f"Reading {file.name}"):
        made = service.register_reference_file(model, file, version, environment)
    print(f"{model}: {made['rows']} rows of {made['reference']} are the reference for {', '.join(made['features'])}")


@app.command()
def evaluate(
    model: ModelName,
    at: At = None,
    config: ConfigPath = DEFAULT_CONFIG,
    environment: Environment = "production",
    as_json: AsJson = False,
) -> None:
    """Judge the windows that end at a time (default: where the traffic ends). Sends nothing to anyone."""
    from monitor.show import show_evaluation

    with _service(config) as service, _working(f"Judging {model}"):
        answer = service.evaluate(model, _time(at), environment)
    if as_json:
        print(json.dumps(answer))
    else:
        show_evaluation(answer)


@app.command()
def fleet(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="The model's name; without it, every server.")] = "",
    at: At = None,
    config: ConfigPath = DEFAULT_CONFIG,
    environment: Environment = "production",
    as_json: AsJson = False,
) -> None:
    """Show which version of a model served on which server, or all that each server serves, and its clock."""
    from monitor.show import show_fleet, show_servers

    with _service(config) as service:
        places = service.fleet(model, _time(at), environment) if model else service.servers(_time(at), environment)
    if as_json:
        print(json.dumps(places))
    elif model:
        show_fleet(model, places)
    else:
        show_servers(places)


@app.command()
def budget(
    model: ModelName,
    config: ConfigPath = DEFAULT_CONFIG,
    environment: Environment = "production",
    as_json: AsJson = False,
) -> None:
    """Show where a model's budget of false alarms goes."""
    from monitor.show import show_budget

    with _service(config) as service:
        answer = service.budget(model, environment)
    if as_json:
        print(json.dumps(answer))
    else:
        show_budget(answer)


@app.command()
def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show what is kept, and what goes on."""
    from monitor.show import show_status

    with _service(config) as service:
        answer = service.status()
    if as_json:
        print(json.dumps(answer))
    else:
        show_status(answer)


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="A Parquet, CSV or NDJSON file.")],
    current: Annotated[Path, typer.Argument(help="Another, with the same columns.")],
    false_alarms: Annotated[float, typer.Option(help="How often two alike files may look drifted.")] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Compare two files. Exit code 0: no drift; 1: drift; 2: could not judge."""
    from detectors.compare import compare_frames
    from monitor.reference import read_table

    if not 0 < false_alarms < 1:
        _fail("--false-alarms must be above 0 and below 1")
    with _working(f"Comparing {reference.name} and {current.name}"):
        report = compare_frames(read_table(reference), read_table(current), false_alarms)
    print(json.dumps(report.to_dict()) if as_json else report)
    raise typer.Exit(FAILED if not report.judged else 1 if report.drifted else 0)


@app.command()
def export(
    model: ModelName,
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The file to write.")],
    start: Annotated[str, typer.Option("--from", help="RFC 3339 with an offset.")],
    end: Annotated[str, typer.Option("--to", help="RFC 3339 with an offset.")],
    config: ConfigPath = DEFAULT_CONFIG,
    environment: Environment = "production",
) -> None:
    """Write the kept feature rows of a span to a Parquet file."""
    first, last = _time(start), _time(end)
    if first is None or last is None or first >= last:
        _fail("--from must be before --to")
    if not out.parent.is_dir():
        _fail(f"{out.parent}: there is no such folder; make it first")
    with _service(config) as service, _working(f"Writing {out.name}"):
        out.write_bytes(service.export(model, first, last, environment))
    print(f"written to {out}")


@app.command()
def explain(
    model: ModelName,
    feature: Annotated[str, typer.Option(help="A feature of the model.")],
    start: Annotated[str, typer.Option("--from", help="RFC 3339 with an offset.")],
    end: Annotated[str, typer.Option("--to", help="RFC 3339 with an offset.")],
    against: Annotated[
        str, typer.Option(help="A file, or a span FROM..TO; the configured reference if left out.")
    ] = "",
    test: Annotated[str, typer.Option(help="Such as ks_2samp; a name that does not exist lists them.")] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    environment: Environment = "production",
    as_json: AsJson = False,
) -> None:
    """Test the kept rows of one feature against those of the reference, and show the named statistics."""
    from monitor.explain import explain_feature
    from monitor.show import show_explanation

    first, last = _time(start), _time(end)
    if first is None or last is None or first >= last:
        _fail("--from must be before --to")
    reference = _against(model, against, config)
    with _service(config) as service, _working(f"Reading {feature}"):
        found = explain_feature(
            lambda a, b: service.export(model, a, b, environment), feature, first, last, reference, test
        )
    if as_json:
        print(json.dumps(found))
    else:
        show_explanation(model, found)


@app.command()
def audit(
    config: ConfigPath = DEFAULT_CONFIG,
    start: Annotated[str | None, typer.Option("--from", help="RFC 3339 with an offset; a day before --to.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="RFC 3339 with an offset; now.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take in again what is lacking, where it can be had.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold rows and profiles against what was counted when they came in. Exits with 1 if they differ."""
    from monitor.show import show_audit

    with _service(config) as service, _working("Counting"):
        found = service.audit(_time(start), _time(end), repair=repair)
    if as_json:
        print(json.dumps(found))
    else:
        show_audit(found)
    if found["disagreements"]:
        raise typer.Exit(1)


@app.command()
def forget(
    model: ModelName,
    config: ConfigPath = DEFAULT_CONFIG,
    prediction_id: Annotated[str, typer.Option(help="One prediction.")] = "",
    entity: Annotated[str, typer.Option(help="All predictions about somebody: their entity_id.")] = "",
    environment: Environment = "production",
) -> None:
    """Remove rows and labels of predictions for good. Counts, findings and raw dead letters stay."""
    if bool(prediction_id) == bool(entity):
        _fail("name either --prediction-id or --entity")
    with _service(config) as service, _working("Removing"):
        removed = service.forget(model, prediction_id, entity, environment)
    print(f"{removed['predictions']} predictions forgotten")


@app.command()
def migrate(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Bring the store's tables up to date. Starting the service does it too."""
    from monitor.service import Service

    with Service(_load(config)) as service:
        applied = service.applied_migrations
    print("\n".join(applied) if applied else "nothing to do")


@app.command()
def demo(
    exit_at_end: Annotated[bool, typer.Option("--exit", help="Leave at the end instead of serving the page.")] = False,
    as_json: AsJson = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is served; 0 takes a free one.")] = 8300,
    seed: Annotated[int, typer.Option(help="Another seed, another fleet.")] = 1,
) -> None:
    """Run the whole story: a bad server, a shift upstream, late labels, a rollback, and the proof that it worked."""
    from monitor.demo import run_demo
    from monitor.logs import configure

    configure()
    raise typer.Exit(run_demo(seed=seed, port=port, as_json=as_json, exit_at_end=exit_at_end))


@app.command()
def sample_fleet(
    kafka: Annotated[str, typer.Option(help="The brokers, with commas between them.")],
    topic: Annotated[str, typer.Option(help="The topic that Telltale reads.")],
    api: Annotated[str, typer.Option(help="Where Telltale's API is.")],
    key_file: Annotated[Path, typer.Option(help="A file with an API key of scope admin.")],
    seed: Annotated[int, typer.Option(help="Another seed, another fault.")] = 1,
) -> None:
    """Play six pods that log to Kafka, with a fault upstream, to see a whole stack at work. Ends on SIGTERM."""
    from monitor.clock import SystemClock
    from monitor.demo.fleet import run_fleet
    from monitor.logs import configure

    configure()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    run_fleet(kafka, topic, api, key_file, seed, SystemClock().now, stopped)


def main() -> None:
    """The console script. No error may end in exit code 1, which says "drift" where files are compared."""
    try:
        _check_rooms()
        app()
    except Exception as error:  # noqa: BLE001 - it is told, and with its traceback to who asks for that
        if isinstance(error, _expected()):
            _fail(str(error))
        if os.environ.get("TELLTALE_LOG_LEVEL", "").upper() == "DEBUG":
            traceback.print_exc()
        _fail(f"unexpected error: {type(error).__name__}: {' '.join(str(error).split())}")


def _expected() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend: shown as one message, without a traceback."""
    from alerts.ledger import LedgerError
    from detectors.drilldown import DrilldownError
    from detectors.layout import LayoutError
    from monitor.audit import AuditError
    from monitor.config import ConfigError
    from monitor.demo.fleet import FleetError
    from monitor.folding import GoneError
    from monitor.reference import TableError
    from monitor.registry import UnknownModelError
    from monitor.remote import RemoteError
    from monitor.replay import ReplayError
    from monitor.store import StoreError
    from monitor.tables import BadTableError

    told = (AuditError, BadTableError, ConfigError, DrilldownError, FleetError, GoneError, LayoutError, LedgerError)
    return (*told, RemoteError, ReplayError, StoreError, TableError, UnknownModelError)


def _check_rooms() -> None:
    """The rooms have plain names; another package of the same name in this environment must not be taken for one."""
    import importlib.util

    home = Path(__file__).parent.parent
    for room in ("alerts", "detectors", "dashboards"):
        found = importlib.util.find_spec(room)
        origin = Path(found.origin).parent.parent if found and found.origin else None
        if origin != home:
            _fail(
                f"the package {room!r} in this environment is not Telltale's ({origin}); use an environment of its own"
            )


def _load(path: Path) -> Config:
    from monitor.config import Config
    from monitor.config_file import load

    if path == DEFAULT_CONFIG and not path.exists():
        _say(f"There is no {path} here: using the defaults, with data in ./data")
        return Config()
    return load(path)


def _against(model: str, text: str, config: Path) -> ReferenceSpec:
    """What to compare with: a span, a file, or what the configuration says."""
    from monitor.config import ReferenceSpec, ReferenceWindow

    start, dots, end = text.partition("..")
    if start and dots:
        first, last = _time(start), _time(end)
        if first is None or last is None or first >= last:
            _fail("--against: FROM must be before TO")
        return ReferenceSpec(window=ReferenceWindow(start=first, end=last))
    if text:
        return ReferenceSpec(file=Path(text))
    models = _load(config).models
    configured = models[model].reference if model in models else None
    if configured is None:
        _fail(f"model {model!r} has no reference in the configuration; name rows with --against FILE or FROM..TO")
    return configured


def _service(path: Path) -> Service | RemoteService:
    from monitor.logs import configure
    from monitor.running import open_service

    configure()
    return open_service(_load(path), _say)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _working(what: str) -> Any:
    """Shows on a terminal that something goes on, for as long as it does."""
    from rich.console import Console
    from rich.markup import escape

    return Console(stderr=True).status(escape(what))


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        _fail(f"{text!r} is not a time with an offset; write one such as 2026-01-31T00:00Z")
    return at


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str) -> NoReturn:
    _say(f"telltale: {text}")
    raise SystemExit(FAILED)


app.add_typer(dashboard_commands(_service), name="dashboards")
add_replay(app, _service, _time, _working)
add_test(app, _working)
app.add_typer(dead_letter_commands(_service), name="dead-letters")

if __name__ == "__main__":
    main()
