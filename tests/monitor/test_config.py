"""A wrong configuration is refused in one line: where, what, and what would be right."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from monitor.config import ConfigError, format_duration, load, loads, parse_duration, read_secret

ROOT = Path(__file__).parents[2]
HOOK = "notifiers: {ci: {kind: webhook, url: 'https://ci.example.com/', secret_env: S}}\n"


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, Path("t.yaml"))
    return str(caught.value)


def test_the_example_at_the_root_is_right() -> None:
    config = load(ROOT / "telltale.yaml")
    assert config.models["loans"].label_delay == timedelta(days=2)
    assert config.store.path == ROOT / "data"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modles: {}", "t.yaml: modles: 'modles' is not a key of the file; did you mean 'models'?"),
        ("store: {pth: x}", "store.pth: 'pth' is not a key of store; did you mean 'path'? known: ledger, path"),
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
            "api_keys: [{name: a, scopes: [reed], key_env: X}]",
            "api_keys[0].scopes[0]: 'reed' is not known; use 'ingest'",
        ),
        ("api_keys: [{name: a, scopes: [read]}]", "api_keys[0]: needs either key_env or key_file"),
        ("a: [", "t.yaml: not YAML"),
        ("[1]", "t.yaml: holds a list"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_mend(text: str, message: str) -> None:
    found = problem(text)
    assert message in found
    assert len(found.splitlines()) == 1


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
