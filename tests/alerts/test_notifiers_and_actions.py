"""The kinds of notifiers and actions, and what every one of them must do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from alerting import BEGIN, KEY_TEXT, window
from pydantic import TypeAdapter, ValidationError

import alerts.actions
import alerts.notifiers
from alerts.incidents import Incident
from alerts.kinds import kinds_in
from alerts.messages import alert_body
from alerts.notifiers import SecretError
from alerts.notifiers.webhook import Webhook
from alerts.policy import Policy, Verdict

KINDS = {**kinds_in(alerts.notifiers), **kinds_in(alerts.actions)}
LEAST: dict[str, dict[str, Any]] = {
    "webhook": {"url": "https://ops.example/hook", "secret_env": "OPS_SECRET"},
    "alertmanager": {"url": "http://alerts.example:9093"},
    "rollback": {"notifier": "ci"},
}
URL = "https://ops.example/services/hunter2?token=hunter2"


def test_every_kind_is_checked() -> None:
    assert KINDS.keys() == LEAST.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_frozen_dataclass_named_by_its_file(kind: str) -> None:
    cls = KINDS[kind]
    assert get_args(get_type_hints(cls)["kind"]) == (kind,)
    made = cls(kind, **LEAST[kind])
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.kind = "other"


@pytest.mark.parametrize("kind", kinds_in(alerts.notifiers))
def test_a_notifier_makes_requests_and_shows_no_url(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_SECRET", KEY_TEXT)
    one, other = (KINDS[kind](kind, **LEAST[kind] | {"url": url}) for url in ("http://a/hunter2", "http://b/hunter2"))
    body = alert_body(
        Incident.of(Policy("p", "drift"), Verdict("p", "drifted", "2", "", "", window(0))), "found", BEGIN
    )
    request = one.request("msg_1", body, BEGIN)
    assert (request.origin, request.timeout_seconds) == ("http://a", 15)
    assert "hunter2" not in one.address + repr(one) + repr(request)
    assert one.address != other.address
    assert {type(one.forgets), type(one.carries_out_actions)} == {bool}


@pytest.mark.parametrize("kind", [*KINDS, "policy"])
def test_configuration_refuses_what_it_does_not_know(kind: str) -> None:
    cls: type = KINDS.get(kind, Policy)
    least = {"kind": kind, **LEAST[kind]} if kind in KINDS else {"name": "p", "watch": "drift"}
    adapter: TypeAdapter[Any] = TypeAdapter(cls)
    assert adapter.validate_python(least) == cls(**least)
    with pytest.raises(ValidationError):
        adapter.validate_python(least | {"colour": "red"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "ftp://ops.example/"}, "http:// or https://"),
        ({"url": "https:///hook"}, "name a host"),
        ({"url": "https://user:hunter2@ops.example/"}, "no user name"),
        ({"url": "https://ops.example:99999/hunter2"}, "port"),
        ({"url": "https://ops.example/a b"}, "blanks"),
        ({"url": "https://ops.example/\r\nhost: x"}, "blanks"),
        ({"url": "https://\u00f6ps.example/"}, "ASCII"),
        ({"secret_env": None}, "either secret_file or secret_env"),
        ({"secret_file": "x"}, "either secret_file or secret_env"),
        ({"allow_networks": ("10.0.0.1/8",)}, "allow_networks"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 61}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Webhook("webhook", **LEAST["webhook"] | settings)
    assert "hunter2" not in str(caught.value)


def test_neither_url_nor_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_SECRET", "hunter3")
    hook = Webhook("webhook", URL, secret_env="OPS_SECRET")  # noqa: S106 - the name of a variable
    shown = repr(hook) + repr(hook.request("msg_1", b"{}", BEGIN)) + hook.request("msg_1", b"{}", BEGIN).origin
    assert "hunter" not in shown
    assert "OPS_SECRET" in shown
    assert hook.request("msg_1", b"{}", BEGIN).origin == "https://ops.example"


def test_a_secret_is_read_from_its_place_at_every_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    of_file = Webhook("webhook", URL, secret_file=str(file))
    of_environment = Webhook("webhook", URL, secret_env="OPS_SECRET")  # noqa: S106 - the name of a variable
    signatures = set()
    for text in (KEY_TEXT, "just text"):
        file.write_text(text + "\n")
        monkeypatch.setenv("OPS_SECRET", text)
        both = {w.request("msg_1", b"{}", BEGIN).headers["webhook-signature"] for w in (of_file, of_environment)}
        assert len(both) == 1
        signatures |= both
    assert len(signatures) == 2


@pytest.mark.parametrize("content", [None, b"", b"\n", b"whsec_hunter2!", b"\xff\xfe"])
def test_a_secret_that_cannot_be_used_says_where_it_is(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretError, match=r"the file .*secret") as caught:
        Webhook("webhook", URL, secret_file=str(file)).request("msg_1", b"{}", BEGIN)
    assert "hunter2" not in str(caught.value)
