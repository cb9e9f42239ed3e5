"""A wrong configuration is refused in one line: where, what, and what would be right."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from alerts.notifiers.webhook import Webhook
from monitor.config import READ_FIELDS, ConfigError
from monitor.config_file import load, loads
from monitor.durations import format_duration, parse_duration
from monitor.secrets import missing_secrets, read_secret

ROOT = Path(__file__).parents[2]
HOOK = "notifiers: {ci: {kind: webhook, url: 'https://ci.example.com/', secret_env: S}}\n"


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, Path("t.yaml"))
    return str(caught.value)


def test_rows_are_kept_as_long_as_labels_may_take() -> None:
    models = loads("models: {m: {}, slow: {label_delay: 120d}, short: {retention: {rows: 5d}}}", Path("t.yaml")).models
    assert [models[name].rows_kept.days for name in ("m", "slow", "short")] == [90, 124, 5]


def test_how_long_things_are_kept_does_not_change_what_becomes_of_an_event() -> None:
    plain, kept = (loads(text, Path("t")) for text in ("models: {m: {}}", "models: {m: {retention: {hours: 50d}}}"))
    assert plain.intake_revision == kept.intake_revision


def test_the_example_at_the_root_is_right() -> None:
    config = load(ROOT / "telltale.yaml")
    assert config.models["loans"].label_delay == timedelta(days=2)
    assert config.store.path == ROOT / "data"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modles: {}", "t.yaml: modles: 'modles' is not a key of the file; did you mean 'models'?"),
        ("store: {pth: x}", "store.pth: 'pth' is not a key of store; did you mean 'path'? known: clickhouse, ledger, "),
        ("store: {clickhouse: {url: 'http://h:8123'}}", "store.clickhouse.url: is not the URL of such a server"),
        ("store: {clickhouse: {url: 'clickhouse://u:s3cret@h'}}", "store.clickhouse.url: must not hold the password"),
        ("store: {ledger: 'postgresql://u:s3cret@h/d'}", "store: ledger must not hold the password"),
        ("store: {ledger: 'postgresql://u@h/d?password=s3cret'}", "store: ledger must not hold the password"),
        ("store: {ledger: 'mysql://u@h/d'}", "store: ledger is no database that Telltale can use; write one such as "),
        ("store: {clickhouse: {url: 'clickhouse://h/d?secure=1'}}", "store.clickhouse.url: holds more than user, host"),
        ("store: {clickhouse: {url: 'clickhouse://h', password_env: A, password_file: b}}", "names two places for one"),
        ("store: {clickhouse: 'h'}", "store.clickhouse: 'h' does not fit: write a section with keys of its own"),
        ("store: {ledger: 'postgresql://u@h:port/d'}", "store: ledger has a port that is none; write a number"),
        ("sources: {kafka: {topics: t, bootstrap_servers: ['b:9']}}", "does not fit: write a list such as [a, b]"),
        ("sources: {kafka: {topics: [''], bootstrap_servers: ['b:9']}}", "sources.kafka.topics[0]: "),
        (
            "sources: {kafka: {topics: [t], bootstrap_servers: [b]}}",
            "sources.kafka.bootstrap_servers[0]: 'b' is no address of a broker; write one such as 10.0.0.7:9092",
        ),
        ("sources: {kafka: {topics: [t]}}", "sources.kafka.bootstrap_servers: is missing; add it"),
        (
            "sources: {kafka: {topics: [t], bootstrap_servers: ['b:9'], protocol: SASL_SSL, username: u}}",
            "sources.kafka: SASL_SSL needs mechanism, username, and password_file or password_env",
        ),
        (
            "sources: {kafka: {topics: [t], bootstrap_servers: ['b:9'], username: u}}",
            "sources.kafka: mechanism, username and password are not used with PLAINTEXT",
        ),
        (
            "sources: {kafka: {topics: [t], bootstrap_servers: ['b:9'], protocol: SSL, key_file: k}}",
            "sources.kafka: certificate_file and key_file go together",
        ),
        ("models: {m: {task: guess}}", "models.m.task: 'guess' is not known; use 'classification' or 'regression'"),
        ("models: {m: {features: {a: number}}}", "models.m.features.a: 'number' is not a kind of feature"),
        ("models: {m: {label_delay: soon}}", "models.m.label_delay: 'soon' is not a duration; write a number and"),
        ("models: {m: {windows: [90s]}}", "models.m.windows[0]: is not a whole number of minutes"),
        ("models: {m: {windows: []}}", "models.m.windows: "),
        ("models: {m: {timezone: Mars/Base}}", "models.m.timezone: 'Mars/Base' is not a time zone"),
        ("models: {m: {sampling: {features: 2}}}", "models.m.sampling.features: 2 does not fit: "),
        ("models: {m: {reference: {}}}", "models.m.reference: needs either file or window"),
        ("models: {m: {privacy: {hash: [a]}}}", "models.m.privacy: hash needs hash_key_env or hash_key_file"),
        ("models: {m: {privacy: {drop: [server]}}}", "models.m.privacy: 'server' is needed to place an event"),
        ("policies: [{name: p, watch: drft}]", "policies[0].watch: 'drft' is not known; use 'drift', "),
        (
            "models: {m: {features: {'@x': numeric}}}",
            "models.m.features: '@x' begins with the mark of a model's outputs",
        ),
        ("policies: [{watch: drift}]", "policies[0].name: is missing; add it"),
        ("policies: [{name: p, watch: drift, hld: 1}]", "did you mean 'hold'?"),
        ("policies: [{name: p, watch: drift, models: [m]}]", "policies[0].models: 'm' is not a model; no model is"),
        ("models: {m: {}}\npolicies: [{name: p, watch: drift, window: 2h}]", "its windows are 1h, 6h, 1d"),
        ("policies: [{name: p, watch: drift}, {name: p, watch: drift}]", "policies[1].name: 'p' is there twice"),
        (
            HOOK + "actions: {a: {kind: rollback, notifier: cii}}",
            "actions.a.notifier: 'cii' is not a notifier; did you",
        ),
        (HOOK + "actions: {a: {kind: rollback, notifier: ci, cool_down: x}}", "'x' is not a duration"),
        (
            "notifiers: {am: {kind: alertmanager, url: 'http://am'}}\nactions: {a: {kind: rollback, notifier: am}}",
            "actions.a.notifier: 'am' is told of alerts and carries nothing out; use a webhook",
        ),
        ("notifiers: {x: {kind: slack}}", "notifiers.x.kind: 'slack' is not known; use 'alertmanager' or 'webhook'"),
        ("notifiers: {x: {url: 'http://am'}}", "notifiers.x.kind: is missing; add it"),
        ("notifiers: {webhook: {kind: webhook}}", "t.yaml: notifiers.webhook.url: is missing; add it"),
        (
            "notifiers: {x: {kind: alertmanager, url: 'http://am', secret_env: S}}",
            "notifiers.x.secret_env: 'secret_env' is not a key of notifiers.x; did you mean 'bearer_env'?",
        ),
        (
            "notifiers: {x: {kind: alertmanager, url: 'http://am', bearer_env: A, bearer_file: b}}",
            "t.yaml: notifiers.x: needs bearer_file or bearer_env, not both",
        ),
        (
            "api_keys: [{name: a, scopes: [reed], key_env: X}]",
            "api_keys[0].scopes[0]: 'reed' is not known; use 'ingest'",
        ),
        ("api_keys: [{name: a, scopes: [read]}]", "api_keys[0]: needs either key_env or key_file"),
        ("a: [", "t.yaml: not YAML"),
        ("store: {}\nmodels: {}\nstore: {}", "t.yaml: not YAML: the key 'store' is there twice (line 3, column 1)"),
        ("models: {m: {}, m: {}}", "the key 'm' is there twice (line 1, column 17)"),
        ("a: 2026-13-45", "t.yaml: not YAML: month must be in 1..12"),
        ("models: {'': {}}", "models: a model has no name"),
        ("models: {m: {retention: {rows: 1h}}}", "models.m.retention.rows: must be from 1d to 36600d"),
        (
            "models: {m: {retention: {rows: 4d}}}",
            "label_delay (1d) and retention.minutes (3d) need 5d",
        ),
        (
            "models: {m: {windows: [30d], retention: {hours: 31d}}}",
            "models.m.retention.hours: 31d is too short: the longest window (30d) and retention.minutes (3d) need 33d",
        ),
        ("models: {m: {retention: {days: 4d}}}", "models.m.retention.days: 'days' is not a key of models.m.retention"),
        ("retention: {rows: 4d}", "retention.rows: 'rows' is not a key of retention; known: dead_letters, health"),
        ("models: {m: {label_delay: -5}}", "models.m.label_delay: must be from 0s to 3660d"),
        ("models: {m: {label_delay: 4000d}}", "models.m.label_delay: must be from 0s to 3660d"),
        ("models: {m: {label_delay: 99999999999w}}", "models.m.label_delay: '99999999999w' is too long a duration"),
        ("models: {m: {windows: [367d]}}", "models.m.windows[0]: is longer than 366d"),
        (
            "models: {m: {reference: {window: {start: 2026-01-02T00:00Z, end: 2026-01-02T00:00Z}}}}",
            "models.m.reference.window: end must be after start",
        ),
        (
            "servers: {a: {health_url: 'ftp://a/b'}}",
            "servers.a.health_url: 'ftp://a/b' is not a URL; write one such as",
        ),
        ("servers: {a: {health_url: 'http:///health'}}", "servers.a.health_url: 'http:///health' is not a URL"),
        ("servers: {a: {health_url: 'http://a:99999/'}}", "servers.a.health_url: 'http://a:99999/' is not a URL"),
        ("[1]", "t.yaml: holds a list"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_mend(text: str, message: str) -> None:
    found = problem(text)
    assert message in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("field", sorted(READ_FIELDS))
@pytest.mark.parametrize("how", ["drop", "hash"])
def test_fields_that_telltale_reads_cannot_be_hidden(field: str, how: str) -> None:
    found = problem(f"models: {{m: {{privacy: {{{how}: [{field}], hash_key_env: K}}}}}}")
    assert f"t.yaml: models.m.privacy: {field!r} is a field that Telltale reads itself" in found


def test_mappings_may_be_merged() -> None:
    text = "models: {a: &a {owner: x, task: regression}, b: &b {<<: *a, owner: y}, c: {<<: *b, owner: z}}"
    assert [(m.owner, m.task) for m in loads(text, Path("t.yaml")).models.values()] == [
        ("x", "regression"),
        ("y", "regression"),
        ("z", "regression"),
    ]


def test_missing_secrets_are_told_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "hush")
    text = (
        "notifiers:\n"
        "  ci: {kind: webhook, url: 'https://ci.example.com/', secret_env: GONE_A}\n"
        "  am: {kind: alertmanager, url: 'http://am.example.com/', bearer_file: gone.token}\n"
        "api_keys: [{name: a, scopes: [read], key_env: THERE}, {name: b, scopes: [read], key_file: gone.key}]\n"
        "models: {m: {privacy: {hash: [entity_id], hash_key_env: GONE_B}}}\n"
    )
    assert list(missing_secrets(loads(text, Path("t.yaml")))) == [
        "models.m.privacy: the environment variable GONE_B is not set; it should hold a secret",
        "notifiers.ci: the environment variable GONE_A is not set; it should hold a secret",
        "notifiers.am: gone.token: the secret cannot be read: No such file or directory",
        "api_keys[1]: gone.key: the secret cannot be read: No such file or directory",
    ]


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problem("modles: {}\nstore: {pth: x}").splitlines()) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["90s", "5m", "6h", "2d", "1w"])
def test_durations_read_as_they_are_written(text: str) -> None:
    duration = parse_duration(text)
    assert isinstance(duration, timedelta)
    assert parse_duration(format_duration(duration)) == duration


def test_a_secret_is_never_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match="EMPTY is not set"):
        read_secret("EMPTY", None)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(None, tmp_path / "none")
    (tmp_path / "key").write_text("hush\n", "utf-8")
    assert read_secret(None, tmp_path / "key") == "hush"


def test_no_password_is_shown() -> None:
    for text in (
        "store: {clickhouse: {url: 'clickhouse://u:s3cret@h'}}",
        "store: {ledger: 'postgresql://u:s3cret@h/d'}",
    ):
        assert "s3cret" not in problem(text)


def test_every_path_is_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "store: {path: d, clickhouse: {url: 'clickhouse://h', password_file: a, ca_file: /etc/ca}}\n"
        "sources: {kafka: {topics: [t], bootstrap_servers: ['b:9'], ca_file: c}}\n"
        "notifiers: {ci: {kind: webhook, url: 'https://ci.example.com/', secret_file: s}}\n"
    )
    config = load(file)
    assert config.store.path == tmp_path / "d"
    assert config.store.clickhouse is not None
    assert config.sources.kafka is not None
    assert (config.store.clickhouse.password_file, config.store.clickhouse.ca_file) == (tmp_path / "a", Path("/etc/ca"))
    assert config.sources.kafka.ca_file == tmp_path / "c"
    assert isinstance(config.notifiers["ci"], Webhook)
    assert config.notifiers["ci"].secret_file == str(tmp_path / "s")
    assert list(missing_secrets(config)) == [
        f"store.clickhouse: {tmp_path}/a: the secret cannot be read: No such file or directory",
        f"notifiers.ci: {tmp_path}/s: the secret cannot be read: No such file or directory",
    ]


def test_what_stands_for_a_url_is_not_shown() -> None:
    text = "notifiers: {ci: {kind: webhook, url: ['https://hooks.example/s3cret'], secret_env: S}}"
    assert "s3cret" not in problem(text)
    assert "notifiers.ci.url: what stands here does not fit" in problem(text)


def test_a_secret_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="s: the secret is not UTF-8 text"):
        read_secret(None, tmp_path / "s")
