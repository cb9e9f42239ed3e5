"""What docker-compose.yml, the Dockerfile and deploy/ promise, as far as it can be seen without a Docker engine."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from dashboards.grafana.panels import DATASOURCE
from monitor.config_file import loads
from monitor.secrets import missing_secrets

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
TASKS = {"topics", "migrate", "dashboards"}
ROOMS = {"ingest", "judge", "api"}
SAMPLE = "fleet"
CONFIG = (ROOT / "deploy/telltale.yaml").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SECRETS_FOLDER = "/run/secrets/"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder deploy/secrets as deploy/make-secrets makes it."""
    script = tmp_path / "make-secrets"
    shutil.copy(ROOT / "deploy/make-secrets", script)
    subprocess.run([script], check=True, capture_output=True)
    return tmp_path / "secrets"


def used(section: str) -> Iterator[tuple[str, str]]:
    """Services, with the names of a top-level section that they use."""
    for name, service in SERVICES.items():
        for use in service.get(section, ()):
            if section == "volumes":
                source = use.split(":")[0]
                if not source.startswith("."):
                    yield name, source
            else:
                yield name, use["source"] if isinstance(use, dict) else use


def neighbours(name: str) -> set[str]:
    """The services that share a network with one."""
    networks = set(SERVICES[name]["networks"])
    return {other for other, service in SERVICES.items() if other != name and networks & set(service["networks"])}


def test_it_is_a_compose_file() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_itself_takes_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its compose plugin is not installed; the schema and the other tests stand in for it")
    checked = subprocess.run([docker, "compose", "-f", FILE, "config", "-q"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("section", ["networks", "volumes", "secrets", "configs"])
def test_what_is_declared_is_used_and_the_other_way_round(section: str) -> None:
    assert {name for _, name in used(section)} == set(COMPOSE[section])


def test_every_image_is_pinned_to_a_full_version() -> None:
    images = {service["image"] for service in SERVICES.values()} | set(re.findall(r"^FROM (\S+:\S+)", DOCKERFILE))
    for image in images:
        name, _, tag = image.partition(":")
        numbers = 2 if name == "postgres" else 3  # its versions have two
        assert re.fullmatch(rf"\d+(\.\d+){{{numbers - 1},}}(-[a-z-]+)?", tag), image
    plugin = SERVICES["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
    assert re.fullmatch(DATASOURCE["type"] + r"@4\.\d+\.\d+", plugin)


def test_our_image_says_our_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"telltale:{version}"}
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE


def test_only_the_page_and_grafana_are_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8300:8300"], "grafana": ["127.0.0.1:3000:3000"]}
    assert not any("network_mode" in service for service in SERVICES.values())


def test_grafana_reaches_clickhouse_only() -> None:
    assert neighbours("grafana") == {"clickhouse"}


def test_servers_with_data_are_reached_from_inside_only() -> None:
    for name in ("kafka", "clickhouse", "postgres"):
        assert all(COMPOSE["networks"][network]["internal"] for network in SERVICES[name]["networks"])
    assert neighbours("postgres") <= {*ROOMS, *TASKS, "clickhouse"}
    assert neighbours("kafka") == {"topics", "ingest", SAMPLE}


def test_what_runs_on_comes_back_and_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == ("no" if name in TASKS else "unless-stopped")
        if name not in {*TASKS, SAMPLE}:  # nobody asks the sample fleet anything
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name


def test_whoever_needs_another_waits_until_it_is_fit() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            fit = "service_completed_successfully" if other in TASKS else "service_healthy"
            assert how == {"condition": fit}
    assert set(SERVICES["fleet"]["depends_on"]) == {"api", "topics"}
    assert all("migrate" in SERVICES[room]["depends_on"] for room in ROOMS)


def test_our_containers_may_do_little() -> None:
    user = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert set(OURS) == {*ROOMS, "migrate", "dashboards", SAMPLE}
    for service in OURS.values():
        assert [service["user"]] == user
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    for service in SERVICES.values():
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")
        assert "mem_limit" in service


def test_secrets_come_from_files_and_each_service_has_only_its_own() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|_KEY", key):
                assert key.endswith("_FILE")
                assert value.removeprefix(SECRETS_FOLDER) in service["secrets"], name
    assert SERVICES[SAMPLE]["secrets"] == ["api_admin_key"]
    assert not set(SERVICES["migrate"]["secrets"]) & {"api_admin_key", "grafana_admin_password"}


def test_make_secrets_makes_every_secret_that_is_declared(made: Path) -> None:
    assert {s["file"] for s in COMPOSE["secrets"].values()} == {
        f"deploy/secrets/{file.name}" for file in made.iterdir()
    }
    assert {s["file"].rpartition("/")[2] for s in COMPOSE["secrets"].values()} == set(COMPOSE["secrets"])
    values = [file.read_text() for file in made.iterdir()]
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values)
    assert len(set(values)) == len(values)


def test_secrets_are_read_by_containers_and_by_nobody_else(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()} == {0o444}


def test_make_secrets_leaves_alone_what_is_there(made: Path) -> None:
    (made / "api_read_key").unlink()
    before = {file.name: file.read_text() for file in made.iterdir()}
    told = subprocess.check_output([made.parent / "make-secrets"], text=True)
    assert told == "made deploy/secrets/api_read_key\n"
    assert {name: (made / name).read_text() for name in before} == before


def test_secrets_get_neither_into_the_repository_nor_into_the_image() -> None:
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
    allowed = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert allowed[0] == "*"
    assert not any("deploy" in line for line in allowed)


def test_what_is_mounted_is_in_the_repository() -> None:
    sources = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", ()) if v.startswith(".")}
    files = {config["file"] for config in COMPOSE["configs"].values()}
    assert sources
    assert [path for path in {*sources, *files} if not (ROOT / path).exists()] == []


def test_the_image_is_built_in_stages_and_the_last_one_builds_nothing() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 3
    builder, last = stages[1:]
    assert "--require-hashes" in builder
    assert "apt-get" not in DOCKERFILE
    assert re.findall(r"pip (\w+)", last) == ["uninstall"]
    assert re.search(r"pip uninstall .*setuptools wheel pip\b", last)
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user
    assert "0" not in user.groups()
    assert last.index("USER") < last.index("ENTRYPOINT")


def test_what_the_image_is_built_from_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copies = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for name in [name for copy in copies for name in copy.split()]:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_the_configuration_finds_its_secrets_in_every_service_that_uses_it(made: Path) -> None:
    config = loads(CONFIG.replace(SECRETS_FOLDER, f"{made}/"), ROOT / "deploy/telltale.yaml")
    assert list(missing_secrets(config)) == []
    named = set(re.findall(SECRETS_FOLDER + r"(\w+)", CONFIG))
    of_stores = {name for name in named if not name.startswith("api_")}
    for name, service in OURS.items():
        if name != SAMPLE:
            assert service["configs"][0]["target"] in service["command"]
            assert set(service["secrets"]) == (named if name in ROOMS else of_stores)


def test_the_configuration_names_what_the_stack_has() -> None:
    config = loads(CONFIG, ROOT / "deploy/telltale.yaml")
    assert config.sources.kafka is not None
    (server,) = config.sources.kafka.bootstrap_servers
    (topic,) = config.sources.kafka.topics
    assert config.store.clickhouse is not None
    assert config.store.clickhouse.url == "clickhouse://telltale@clickhouse:9000/telltale"
    assert config.store.ledger == "postgresql://telltale@postgres:5432/telltale"
    assert SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{server}"
    assert {f"--topic={topic}", f"--bootstrap-server={server}"} < set(SERVICES["topics"]["command"])
    assert {f"--topic={topic}", f"--kafka={server}"} < set(SERVICES[SAMPLE]["command"])
    for name, service in OURS.items():
        if name != SAMPLE:
            assert any(place.startswith(f"{config.store.path}:") for place in service["tmpfs"])


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/telltale.yaml").read_text("utf-8"))["datasources"]
    assert {key: source[key] for key in DATASOURCE} == DATASOURCE
    assert (source["jsonData"]["host"], source["jsonData"]["defaultDatabase"]) == ("clickhouse", "telltale")
    secret = re.fullmatch(rf"\$__file{{{SECRETS_FOLDER}(\w+)}}", source["secureJsonData"]["password"])
    assert secret
    assert secret[1] in SERVICES["grafana"]["secrets"]
    (provider,) = yaml.safe_load((folder / "dashboards/telltale.yaml").read_text("utf-8"))["providers"]
    assert f"dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert SERVICES["dashboards"]["volumes"] == [f"dashboards:{SERVICES['dashboards']['command'][2]}"]


def test_grafana_may_read_what_its_panels_show_and_nothing_else(made: Path, tmp_path: Path) -> None:
    script = (ROOT / "deploy/clickhouse/grafana-user.sh").read_text("utf-8")
    script = script.replace(SECRETS_FOLDER, f"{made}/").replace("/etc/clickhouse-server/users.d", str(tmp_path))
    subprocess.run(["bash", "-c", script], check=True)
    users = ET.parse(tmp_path / "grafana.xml").getroot()  # noqa: S314 - a script of ours has written it
    password = (made / "clickhouse_grafana_password").read_bytes()
    assert users.findtext("users/grafana/password_sha256_hex") == hashlib.sha256(password).hexdigest()
    profile = users.findtext("users/grafana/profile")
    assert users.findtext(f"profiles/{profile}/readonly") == "2"
    grants = [query.text or "" for query in users.iterfind("users/grafana/grants/query")]
    granted = [re.fullmatch(r"GRANT SELECT(\([a-z, ]+\))? ON telltale\.(\w+)", grant) for grant in grants]
    tables = {grant[2] for grant in granted if grant}
    queries = [file.read_text("utf-8") for file in (ROOT / "dashboards/grafana/queries").glob("*.sql")]
    shown = {table for query in queries for table in re.findall(r"\bFROM ([a-z_]+)", query)}
    view = (ROOT / "monitor/store/migrations/0028_profiles.sql").read_text(
        "utf-8"
    )  # who reads it must read what it reads
    assert "profiles" in shown
    assert tables == shown | set(re.findall(r"\b(?:FROM|JOIN) ([a-z_]+)", view))
    assert "GRANT SELECT(source, batch, row, received, reason) ON telltale.dead_letters" in grants
