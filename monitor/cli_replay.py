"""The command ``telltale replay``: policies tried on the stored past."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigPath = Annotated[Path, typer.Option("--config", "-c", envvar="TELLTALE_CONFIG", help="The configuration file.")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="Part of every key.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


def add_replay(
    app: typer.Typer,
    open_service: Callable[[Path], Any],
    read_time: Callable[[str], datetime | None],
    working: Callable[[str], Any],
) -> None:
    """Add the command.

    open_service
        Gives the service of a configuration file.
    read_time
        Gives the time that a text stands for.
    working
        Shows that something goes on, as long as its context lasts.
    """

    @app.command()
    def replay(
        model: ModelName,
        start: Annotated[str, typer.Option("--from", help="RFC 3339 with an offset, such as 2026-01-31T00:00Z.")],
        end: Annotated[str, typer.Option("--to", help="RFC 3339 with an offset.")],
        config: ConfigPath = Path("telltale.yaml"),
        other: Annotated[
            Path | None, typer.Option("--with", help="Another configuration file: its models and policies are tried.")
        ] = None,
        environment: Environment = "production",
        *,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Try policies on the stored past: how often each would have fired, and the incidents. Sends nothing."""
        from monitor.config_file import rules_to_send
        from monitor.show import show_replay

        span = (read_time(start), read_time(end))
        rules = rules_to_send(other) if other else b""
        with open_service(config) as service, working(f"Replaying {model}"):
            answer = service.replay(model, *span, environment, rules)
        if as_json:
            print(json.dumps(answer))  # noqa: T201 - an answer
        else:
            show_replay(answer)
