"""The commands ``telltale dashboards ...``: Grafana's dashboards as files, or into a running Grafana."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

FAILED = 2
ABOUT = "Grafana's dashboards: one of the fleet and one of each model, over the tables in ClickHouse."

ConfigPath = Annotated[Path, typer.Option("--config", "-c", envvar="TELLTALE_CONFIG", help="The configuration file.")]
PageUrl = Annotated[
    str,
    typer.Option(envvar="TELLTALE_PUBLIC_URL", help="Where people reach Telltale's page; the dashboards lead there."),
]


def dashboard_commands(open_service: Callable[[Path], Any]) -> typer.Typer:
    """The commands.

    open_service
        Gives the service of a configuration file.
    """
    app = typer.Typer(no_args_is_help=True, help=ABOUT)
    default = Path("telltale.yaml")

    def made(config: Path, page_url: str) -> list[dict[str, Any]]:
        from dashboards.grafana import build as build_dashboards

        with open_service(config) as service:
            return build_dashboards(service.status()["models"], page_url)

    @app.command()
    def build(
        folder: Annotated[Path, typer.Argument(metavar="OUT_FOLDER", help="Where the files go; made if need be.")],
        config: ConfigPath = default,
        page_url: PageUrl = "",
    ) -> None:
        """Write a JSON file for each dashboard, for Grafana's file provisioning or its import page.

        The same models give the same bytes. Files of models that are gone are not removed.
        """
        from dashboards.grafana import as_file

        dashboards = made(config, page_url)
        folder.mkdir(parents=True, exist_ok=True)
        for dashboard in dashboards:
            (folder / f"{dashboard['uid']}.json").write_text(as_file(dashboard), "utf-8")
        typer.echo(f"{len(dashboards)} dashboards written to {folder}")

    @app.command()
    def push(
        grafana: Annotated[str, typer.Option(metavar="URL", help="Grafana's address, such as http://10.0.0.5:3000.")],
        token_file: Annotated[Path | None, typer.Option(help="Holds the token of a service account (Editor).")] = None,
        token_env: Annotated[str | None, typer.Option(metavar="NAME", help="The variable that holds it.")] = None,
        clickhouse: Annotated[
            str | None,
            typer.Option(
                metavar="URL",
                help="Make the data source if it is not there (needs Admin): clickhouse://USER@HOST:9000/DATABASE.",
            ),
        ] = None,
        clickhouse_password_file: Annotated[Path | None, typer.Option(help="Holds that user's password.")] = None,
        clickhouse_password_env: Annotated[
            str | None, typer.Option(metavar="NAME", help="The variable that holds it.")
        ] = None,
        config: ConfigPath = default,
        page_url: PageUrl = "",
    ) -> None:
        """Create or update the dashboards in a running Grafana. Doing it again changes nothing; nothing is removed."""
        from dashboards.grafana_push import GrafanaError, clickhouse_source
        from dashboards.grafana_push import push as push_dashboards

        token = _secret("--token", token_env, token_file)
        try:
            source = None
            if clickhouse is not None:
                password = _secret("--clickhouse-password", clickhouse_password_env, clickhouse_password_file)
                source = clickhouse_source(clickhouse, password)
            for what, outcome in push_dashboards(made(config, page_url), grafana, token, source):
                typer.echo(f"{what}: {outcome}")
        except GrafanaError as error:
            typer.echo(f"telltale: {error}", err=True)
            raise typer.Exit(FAILED) from None

    return app


def _secret(option: str, env: str | None, file: Path | None) -> str:
    from monitor.config import ConfigError
    from monitor.secrets import read_secret

    if (env is None) == (file is None):
        raise ConfigError(f"give either {option}-file or {option}-env")
    return read_secret(env, file)
