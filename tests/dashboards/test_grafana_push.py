"""Dashboards into Grafana: each once, again and again; nobody else's; and what is said when it does not work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from grafana import TOKEN, GrafanaStub, grafana_stub
from processes import free_port
from typer.testing import CliRunner, Result

from dashboards.grafana import as_file, build
from dashboards.grafana.panels import DATASOURCE
from dashboards.grafana_push import GrafanaError, clickhouse_source, push
from monitor.cli_dashboards import dashboard_commands
from monitor.config import ConfigError

ROOT = Path(__file__).parents[2]
MODELS: list[dict[str, Any]] = [
    {"environment": e, "model": "m", "task": "classification", "features": {"x": "numeric"}, "segments": []}
    for e in ("production", "staging")
]
DASHBOARDS = build(MODELS)
TITLES = ["Telltale fleet", "m", "m (staging)"]
SOURCE = clickhouse_source("clickhouses://reader@10.0.0.5/telltale", "hush")
NOT_THERE = "not there: without a ClickHouse data source with the uid telltale-clickhouse the panels stay empty"


@pytest.fixture
def grafana() -> Iterator[GrafanaStub]:
    with grafana_stub() as stub:
        yield stub


def pushed(
    grafana: GrafanaStub, dashboards: Any = DASHBOARDS, source: Any = None, token: str = TOKEN
) -> dict[str, str]:
    return dict(push(dashboards, grafana.url, token, source))


def failure(url: str, token: str = TOKEN, source: Any = None) -> str:
    """What a push that does not work says; never the token."""
    with pytest.raises(GrafanaError) as error:
        list(push(DASHBOARDS, url, token, source))
    assert token not in str(error.value)
    assert error.value.__cause__ is None
    return str(error.value)


def test_each_dashboard_is_made_once_and_then_left_unchanged(grafana: GrafanaStub) -> None:
    first, again = pushed(grafana, source=SOURCE), pushed(grafana, source=SOURCE)
    assert first == {
        "folder Telltale": "created",
        "data source Telltale": "created",
        **dict.fromkeys(TITLES, "created"),
        "its data source": "works",
    }
    assert again == {
        "data source Telltale": "unchanged",
        **dict.fromkeys(TITLES, "unchanged"),
        "its data source": "works",
    }
    assert [d["version"] for d in grafana.dashboards.values()] == [1, 1, 1]
    assert set(grafana.folder_of.values()) == set(grafana.folders) == {"telltale"}
    assert [s["uid"] for s in grafana.sources.values()] == [DATASOURCE["uid"]]
    assert {method for method, _ in grafana.requests} == {"GET", "POST"}


def test_what_changed_on_either_side_is_updated_and_the_rest_is_not(grafana: GrafanaStub) -> None:
    pushed(grafana)
    edited = grafana.dashboards[DASHBOARDS[1]["uid"]]
    edited["panels"] = [dict(p, title="mine") for p in edited["panels"]]
    renamed = [*DASHBOARDS[:2], {**DASHBOARDS[2], "description": "new"}]
    assert pushed(grafana, renamed) == {
        "Telltale fleet": "unchanged",
        "m": "updated",
        "m (staging)": "updated",
        "its data source": NOT_THERE,
    }
    assert grafana.dashboards[DASHBOARDS[1]["uid"]]["panels"] == DASHBOARDS[1]["panels"]
    assert [d["version"] for d in grafana.dashboards.values()] == [1, 2, 2]


def test_what_grafana_adds_is_no_change(grafana: GrafanaStub) -> None:
    pushed(grafana)
    for there in grafana.dashboards.values():
        there |= {"weekStart": "", "panels": [{**p, "pluginVersion": "13.2.3"} for p in there["panels"]]}
    assert set(pushed(grafana).values()) == {"unchanged", NOT_THERE}


def test_a_dashboard_stays_in_the_folder_it_was_moved_to(grafana: GrafanaStub) -> None:
    pushed(grafana)
    moved = DASHBOARDS[0]["uid"]
    grafana.folder_of[moved] = ""
    assert pushed(grafana, [{**DASHBOARDS[0], "description": "new"}])["Telltale fleet"] == "updated"
    assert grafana.folder_of[moved] == ""


def test_other_peoples_dashboards_are_left_alone(grafana: GrafanaStub) -> None:
    theirs = {"uid": DASHBOARDS[0]["uid"], "title": "theirs", "tags": [], "id": 9, "version": 3}
    namesake = {"uid": "other", "title": TITLES[1], "tags": [], "id": 8, "version": 1}
    grafana.folders["telltale"] = {"uid": "telltale", "title": "Telltale"}
    grafana.dashboards |= {theirs["uid"]: theirs, "other": namesake}
    grafana.folder_of |= {theirs["uid"]: "", "other": "telltale"}
    outcomes = push(DASHBOARDS, grafana.url, TOKEN)
    assert next(outcomes).outcome == "left alone: the dashboard with the uid telltale-fleet has not the tag telltale"
    with pytest.raises(
        GrafanaError, match="412: A dashboard with the same name in the folder already exists; somebody"
    ):
        next(outcomes)
    assert list(grafana.dashboards.values()) == [theirs, namesake]


def test_a_folder_made_by_another_push_meanwhile_is_used(grafana: GrafanaStub) -> None:
    def unseen_at_first(method: str, path: str) -> tuple[int, Any] | None:
        if (method, path) != ("GET", "/api/folders/telltale") or grafana.folders:
            return None
        grafana.folders["telltale"] = {"uid": "telltale", "title": "Telltale"}
        return 404, {"message": "folder not found"}

    grafana.before = unseen_at_first
    assert pushed(grafana)["folder Telltale"] == "unchanged"


def test_a_folder_of_that_name_with_another_uid_is_told(grafana: GrafanaStub) -> None:
    grafana.folders["other"] = {"uid": "other", "title": "Telltale"}
    assert failure(grafana.url) == (
        f"Grafana at {grafana.url} answered 409: a folder with the same name already exists in the current location; "
        "rename what has that name in Grafana, or remove it"
    )


def test_grafana_may_be_served_under_a_path() -> None:
    with grafana_stub("/monitoring/grafana") as grafana:
        assert pushed(grafana)["m"] == "created"
        assert dict(push(DASHBOARDS, f"{grafana.url}/", TOKEN))["m"] == "unchanged"
        assert "give Grafana's own address, with the path" in failure(grafana.url.removesuffix("/monitoring/grafana"))


def test_a_wrong_token_is_told_and_never_shown(grafana: GrafanaStub) -> None:
    said = failure(grafana.url, "glsa_wrong")
    assert said == (
        f"Grafana at {grafana.url} answered 401: Invalid API key; "
        "it does not know the token; make one for a service account with the role Editor"
    )
    for token in ("two words", "line\nbreak", "glsa_\u00e9"):
        assert "the token holds characters" in failure(grafana.url, token)
    assert len(grafana.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            (403, {"message": "Permissions needed: folders:create"}),
            "403: Permissions needed: folders:create; the token may",
        ),
        ((500, {"message": "database is locked"}), "answered 500: database is locked"),
        ((502, "<html>Bad gateway</html>"), "answered 502"),
        ((400, {"message": "Cannot save provisioned dashboard"}), "answered 400: Cannot save provisioned dashboard"),
        ((200, "<html>log in</html>"), "answers, but not as Grafana does"),
        ((500, "null"), "answers, but not as Grafana does"),
        ((200, "[]"), "answers, but not as Grafana does"),
        ((502, '"a message"'), "answers, but not as Grafana does"),
        ((302, ""), "leads elsewhere; give the address that it leads to"),
    ],
)
def test_refusals_are_told_in_grafanas_own_words(grafana: GrafanaStub, answer: tuple[int, Any], said: str) -> None:
    grafana.before = lambda *_: answer
    assert said in failure(grafana.url)


def test_a_grafana_that_is_not_there_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert failure(url) == f"Grafana at {url} does not answer: ConnectionError; is the address right, and does it run?"


@pytest.mark.parametrize(
    "url",
    [
        "grafana:3000",
        "ftp://grafana",
        "http://",
        "http://me:hush@grafana",
        "http://grafana/?a=b",
        "http://[a",
        "http://a:x",
    ],
)
def test_only_plain_web_addresses_are_taken(url: str) -> None:
    said = failure(url)
    assert "write one such as https://grafana.example" in said
    assert "hush" not in said


def test_a_data_source_that_does_not_work_is_told(grafana: GrafanaStub) -> None:
    grafana.healthy = False
    assert pushed(grafana, source=SOURCE)["its data source"].endswith("answered 400: connection refused")
    grafana.before = lambda _, path: (403, {"message": "no"}) if path.endswith("/health") else None
    assert pushed(grafana)["its data source"] == "not asked: the token may not"


def test_the_data_source_is_what_the_plugin_wants() -> None:
    assert SOURCE["jsonData"] == {
        "host": "10.0.0.5",
        "port": 9440,
        "protocol": "native",
        "secure": True,
        "username": "reader",
        "defaultDatabase": "telltale",
    }
    assert SOURCE["secureJsonData"] == {"password": "hush"}
    assert clickhouse_source("clickhouse://h")["jsonData"]["defaultDatabase"] == "default"
    for url in ("http://h", "clickhouse://u:hush@h", "clickhouse://"):
        with pytest.raises(GrafanaError, match="the address of ClickHouse") as error:
            clickhouse_source(url)
        assert "hush" not in str(error.value)


class Known:
    """A service that knows two models."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def status(self) -> dict[str, Any]:
        return {"models": MODELS}


def command(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(dashboard_commands(lambda _: Known()), arguments, env=environment)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one is in, with a token in a file."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_build_writes_a_file_for_each_dashboard_and_the_same_again(folder: Path) -> None:
    for _ in range(2):
        done = command("build", "out/boards", "--page-url", "http://t.example")
        assert (done.exit_code, done.stdout) == (0, "3 dashboards written to out/boards\n")
        files = {f.name: f.read_text("utf-8") for f in (folder / "out" / "boards").iterdir()}
        assert files == {f"{d['uid']}.json": as_file(d) for d in build(MODELS, "http://t.example")}


def test_a_person_types_it(folder: Path, grafana: GrafanaStub) -> None:
    (folder / "telltale.yaml").write_text("models: {m: {features: {x: numeric}}}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monitor.cli", "dashboards"),
            *("push", "--grafana", grafana.url, "--token-file", "token"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = ["folder Telltale: created", "Telltale fleet: created", "m: created", f"its data source: {NOT_THERE}"]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, lines, "")


def test_secrets_come_from_files_or_variables(folder: Path, grafana: GrafanaStub) -> None:
    assert folder == Path.cwd()
    assert "m: created" in command("push", "--grafana", grafana.url, "--token-file", "token").stdout
    source = ("--clickhouse", "clickhouse://reader@10.0.0.5", "--clickhouse-password-env", "READER_PASSWORD")
    secrets = {"GRAFANA_TOKEN": TOKEN, "READER_PASSWORD": "hush"}
    again = command("push", "--grafana", grafana.url, "--token-env", "GRAFANA_TOKEN", *source, **secrets).stdout
    assert "m: unchanged" in again
    assert "data source Telltale: created" in again
    assert grafana.sources["telltale-clickhouse"]["secureJsonData"] == {"password": "hush"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --token-file or --token-env"),
        (("--token-file", "token", "--token-env", "X"), "give either --token-file or --token-env"),
        (("--token-file", "none"), "none: the secret cannot be read"),
        (("--token-file", "token", "--clickhouse", "clickhouse://h"), "give either --clickhouse-password-file or"),
    ],
)
def test_a_secret_that_is_not_given_is_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    assert folder == Path.cwd()
    done = command("push", "--grafana", "http://127.0.0.1:1", *arguments)
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_what_grafana_refuses_is_one_line_and_exit_code_2(folder: Path, grafana: GrafanaStub) -> None:
    (folder / "wrong").write_text("glsa_wrong")
    done = command("push", "--grafana", grafana.url, "--token-file", "wrong")
    assert (done.exit_code, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert done.stderr.startswith(f"telltale: Grafana at {grafana.url} answered 401: Invalid API key; ")
    assert "glsa" not in done.stderr
