"""The command ``telltale test``: rules tried on made-up traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def add_test(app: typer.Typer, working: Callable[[str], Any]) -> None:
    """Add the command.

    working
        Shows that something goes on, as long as its context lasts.
    """

    @app.command()
    def test(
        file: Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="What comes and what is said.")],
    ) -> None:
        """Play a scenario and say what became of each expectation. Exit code 0: all true; 1: not all; 2: wrong file."""
        from monitor.logs import configure
        from monitor.scenarios import load_scenario, play
        from monitor.show import show_outcomes

        configure()
        scenario = load_scenario(file)
        with working(f"Playing {file.name}"):
            outcomes, others = play(scenario)
        show_outcomes(outcomes, others)
        raise typer.Exit(0 if all(outcome.passed for outcome in outcomes) else 1)
