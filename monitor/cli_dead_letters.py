"""The commands ``telltale dead-letters ...``: what was refused, and another try."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ABOUT = "Lines that were refused: how many and why, what they hold, and another try."

ConfigPath = Annotated[Path, typer.Option("--config", "-c", envvar="TELLTALE_CONFIG", help="The configuration file.")]
Reason = Annotated[str, typer.Option(help="One of the reasons that list shows; all if left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def dead_letter_commands(open_service: Callable[[Path], Any]) -> typer.Typer:
    """The commands.

    open_service
        Gives the service of a configuration file.
    """
    app = typer.Typer(no_args_is_help=True, help=ABOUT)
    default = Path("telltale.yaml")

    @app.command(name="list")
    def list_(config: ConfigPath = default, *, as_json: AsJson = False) -> None:
        """Say how many lines were refused, by source and reason."""
        from monitor.show import show_dead_letters

        with open_service(config) as service:
            groups = service.dead_letter_groups()
        if as_json:
            print(json.dumps(groups))  # noqa: T201 - an answer
        else:
            show_dead_letters(groups)

    @app.command()
    def show(
        config: ConfigPath = default,
        reason: Reason = "",
        limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 20,
    ) -> None:
        """Print the latest refused lines, each with where it came from and why it was refused, as JSON."""
        with open_service(config) as service:
            for line in service.dead_letter_lines(reason, limit):
                print(json.dumps(line))  # noqa: T201 - an answer

    @app.command()
    def replay(config: ConfigPath = default, reason: Reason = "") -> None:
        """Take in the lines that the rules allow by now. Doing it again changes nothing."""
        with open_service(config) as service:
            outcome = service.replay_dead_letters(reason)
        print(f"{outcome['taken']} lines taken in, {outcome['left']} still refused")  # noqa: T201 - an answer

    return app
