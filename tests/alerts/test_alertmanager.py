"""Alerts in a real Alertmanager: they are there, stay one, end, survive its restart and can be silenced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from alerting import BEGIN, HOUR, LOOPBACK, RULES, Receiver, Script, finding, ledger_at, webhook
from processes import free_port, wait_until
from prometheus import alertmanager, ask

from alerts.delivery import send
from alerts.desk import Desk
from alerts.incidents import Incident
from alerts.ledger import Ledger
from alerts.messages import alert_body
from alerts.notifiers import CannotSendError, Notifier, SecretError
from alerts.notifiers.alertmanager import FIRES_FOR, Alertmanager
from alerts.policy import Policy
from alerts.post import Send
from alerts.transport import Answer, Request
from detectors.finding import Finding, Window

MINUTE = timedelta(minutes=1)
SLOW = Policy("slow", "latency", limit=1.5, hold=1, severity="page", notify=("oncall",))
FIRING = Incident(
    "0123abcd", "worse", "accuracy_drop", "page", "production", "churn", "2", "", "",
    state="firing", since=BEGIN, features=("age", "plan"), value=0.0625, baseline_version="1",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with alertmanager(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with ledger_at(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        yield ledger


def to(url: str, **settings: Any) -> Alertmanager:
    return Alertmanager("alertmanager", url, **{"allow_networks": LOOPBACK, **settings})


def tell(url: str, incident: Incident, at: datetime, *, over: bool = False, **settings: Any) -> None:
    body = alert_body(incident, "cleared" if over else "found", at)
    answer = send(to(url, **settings).request("msg_1", body, datetime.now(UTC)))
    assert answer.received, answer


def alerts_at(url: str, model: str) -> list[dict[str, Any]]:
    """The alerts that are not over."""
    found: list[dict[str, Any]] = ask(f"{url}/api/v2/alerts", filter=f'model="{model}"')
    return found


def time_in(text: str) -> datetime:
    return datetime.fromisoformat(text)


class BothServe:
    def served(self, *_: object) -> Mapping[str, Mapping[str, int]]:
        return {"1": {"a": 50}, "2": {"a": 50}}


class Story:
    """A desk at work on a model of its own, on the real clock, as Alertmanager is."""

    def __init__(
        self, ledger: Ledger, url: str, model: str, *policies: Policy, send: Send = send, **others: Notifier
    ) -> None:
        self.rules = replace(RULES, model=model)
        self.begin = datetime.now(UTC) - 12 * HOUR
        self.desk = Desk(ledger, policies or (SLOW,), {"oncall": to(url), **others}, {}, BothServe(), "", send)

    def judge(self, number: int, *, slow: bool) -> None:
        window = Window("production", self.rules.model, self.begin + number * HOUR, self.begin + (number + 1) * HOUR)
        found: Finding = finding("latency", value=2.0, effects={"above_1e-12": 1.9 if slow else 0.9}, version="2")
        self.desk.take(datetime.now(UTC), self.rules, [replace(found, window=window)], HOUR)

    def deliver(self) -> int:
        return self.desk.deliver(datetime.now(UTC))

    def refresh(self) -> int:
        return self.desk.refresh(datetime.now(UTC))


def test_a_firing_incident_is_an_alert_with_its_place_as_labels(server: str) -> None:
    now = datetime.now(UTC)
    tell(server, replace(FIRING, model="labels"), now - HOUR, page_url="https://telltale.example/")
    (alert,) = alerts_at(server, "labels")
    assert alert["labels"] == {
        "alertname": "TelltaleAccuracyDrop",
        "severity": "page",
        "policy": "worse",
        "watch": "accuracy_drop",
        "model": "labels",
        "environment": "production",
        "version": "2",
    }
    assert alert["annotations"] == {
        "summary": "accuracy drop of labels, version 2: age, plan",
        "features": "age, plan",
        "value": "0.0625",
        "baseline_version": "1",
        "incident": "0123abcd",
    }
    assert alert["status"]["state"] == "active"
    assert abs(time_in(alert["startsAt"]) - (now - HOUR)) < timedelta(seconds=1)
    assert abs(time_in(alert["endsAt"]) - now - FIRES_FOR) < MINUTE
    assert alert["generatorURL"] == "https://telltale.example/"


def test_an_incident_stays_one_alert_whatever_else_is_found_and_ends_when_it_is_resolved(server: str) -> None:
    now = datetime.now(UTC)
    incident = replace(FIRING, model="one", server="pod-1", segment="plan=vip")
    tell(server, incident, now - HOUR)
    tell(server, replace(incident, features=("income",), value=None, baseline_version="0"), now - MINUTE)
    (alert,) = alerts_at(server, "one")
    assert (alert["labels"]["server"], alert["labels"]["segment"]) == ("pod-1", "plan=vip")
    assert (alert["annotations"]["features"], "value" in alert["annotations"]) == ("income", False)
    assert abs(time_in(alert["startsAt"]) - (now - HOUR)) < timedelta(seconds=1)
    tell(server, replace(incident, reason="version 2 no longer serves"), now, over=True)
    assert alerts_at(server, "one") == []


def test_places_are_told_apart(server: str) -> None:
    for version in ("1", "2"):
        tell(server, replace(FIRING, model="apart", version=version), datetime.now(UTC))
    tell(server, replace(FIRING, model="apart"), datetime.now(UTC), over=True)
    assert [a["labels"]["version"] for a in alerts_at(server, "apart")] == ["1"]


def test_alerts_can_be_grouped_and_silenced_by_label(server: str) -> None:
    now = datetime.now(UTC)
    for model in ("quiet", "loud"):
        tell(server, replace(FIRING, model=model), now)
    silence = {
        "matchers": [{"name": "model", "value": "quiet", "isRegex": False}],
        "startsAt": now.isoformat(),
        "endsAt": (now + HOUR).isoformat(),
        "createdBy": "test",
        "comment": "known",
    }
    ask(f"{server}/api/v2/silences", silence)
    states = {model: alerts_at(server, model)[0]["status"]["state"] for model in ("quiet", "loud")}
    assert states == {"quiet": "suppressed", "loud": "active"}

    def grouped() -> bool:
        groups = ask(f"{server}/api/v2/alerts/groups", filter='model=~"quiet|loud"')
        return [(g["labels"], len(g["alerts"])) for g in groups] == [({"alertname": "TelltaleAccuracyDrop"}, 2)]

    wait_until(grouped, "both alerts in one group", seconds=10)


def test_what_the_desk_decides_fires_and_ends_there(ledger: Ledger, server: str) -> None:
    story = Story(ledger, server, "decided")
    story.judge(0, slow=True)
    assert story.deliver() == 1
    (alert,) = alerts_at(server, "decided")
    assert (alert["labels"]["alertname"], alert["labels"]["policy"]) == ("TelltaleLatency", "slow")
    for number in (1, 2, 3):
        story.judge(number, slow=False)
    assert story.deliver() == 1
    assert alerts_at(server, "decided") == []
    assert story.refresh() == 0


def test_what_is_firing_comes_back_after_alertmanager_has_restarted(ledger: Ledger, tmp_path: Path) -> None:
    port = free_port()
    with alertmanager(tmp_path, port) as url:
        story = Story(ledger, url, "back")
        story.judge(0, slow=True)
        story.deliver()
        (before,) = alerts_at(url, "back")
    assert story.refresh() == 0
    with alertmanager(tmp_path, port) as url:
        assert alerts_at(url, "back") == []
        assert story.refresh() == 1
        (after,) = alerts_at(url, "back")
    same = ("labels", "annotations", "startsAt", "fingerprint")
    assert [after[name] for name in same] == [before[name] for name in same]


def test_an_alert_goes_on_for_as_long_as_it_is_refreshed(ledger: Ledger, server: str) -> None:
    story = Story(ledger, server, "long")
    story.judge(0, slow=True)
    assert story.refresh() == 1
    (first,) = alerts_at(server, "long")
    assert story.refresh() == 1
    (second,) = alerts_at(server, "long")
    assert time_in(second["endsAt"]) > time_in(first["endsAt"])
    assert second["startsAt"] == first["startsAt"]


def test_only_receivers_that_forget_are_told_again_and_only_of_their_policies(ledger: Ledger, tmp_path: Path) -> None:
    policies = (
        replace(SLOW, notify=("hook", "oncall")),
        replace(SLOW, name="shown only", severity="notice", notify=()),
    )
    with Receiver() as remembers, Receiver() as forgets:
        story = Story(ledger, forgets.url, "a", *policies, hook=webhook(remembers.url, tmp_path))
        story.judge(0, slow=True)
        assert len(ledger.open_incidents()) == 2
        assert story.refresh() == 1
    assert [r.path for r in forgets.received] == ["/hook/api/v2/alerts"]
    assert remembers.received == []


def test_one_that_wants_no_more_messages_is_not_told_again(ledger: Ledger) -> None:
    with Receiver(Script(410)) as gone:
        story = Story(ledger, gone.url, "a")
        story.judge(0, slow=True)
        assert (story.deliver(), story.refresh()) == (0, 0)
    assert len(gone.received) == 1


def test_a_message_waits_for_alertmanager_to_come_up(ledger: Ledger, tmp_path: Path) -> None:
    port = free_port()
    story = Story(ledger, f"http://127.0.0.1:{port}", "waits")
    story.judge(0, slow=True)
    assert story.deliver() == 0
    with alertmanager(tmp_path, port) as url:
        assert story.desk.deliver(datetime.now(UTC) + MINUTE) == 1
        assert len(alerts_at(url, "waits")) == 1


def test_an_alert_that_is_refused_does_not_hold_up_the_others(ledger: Ledger) -> None:
    with Receiver(Script(400), Script(200)) as receiver:
        story = Story(ledger, receiver.url, "a", SLOW, replace(SLOW, name="slow too"))
        story.judge(0, slow=True)
        assert story.refresh() == 1
    assert len(receiver.received) == 2


def test_a_receiver_that_is_away_is_asked_once_a_refresh(ledger: Ledger) -> None:
    asked: list[Request] = []

    def nobody(request: Request) -> Answer:
        asked.append(request)
        return Answer(None, "nobody there")

    story = Story(ledger, "http://am", "a", SLOW, replace(SLOW, name="slow too"), send=nobody)
    story.judge(0, slow=True)
    assert [story.refresh(), len(asked), story.refresh(), len(asked)] == [0, 1, 0, 2]


def test_what_ended_while_another_receiver_was_slow_is_not_told_again(ledger: Ledger) -> None:
    def meanwhile() -> None:
        for number in (1, 2):
            story.judge(number, slow=False)

    with Receiver(on_request=meanwhile) as slow, Receiver() as quick:
        both = replace(SLOW, notify=("oncall", "quick"))
        story = Story(ledger, slow.url, "a", both, quick=to(quick.url))
        story.judge(0, slow=True)
        assert story.refresh() == 1
    assert (len(slow.received), len(quick.received), ledger.open_incidents()) == (1, 0, [])


def test_the_token_is_read_from_its_place_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = alert_body(FIRING, "found", BEGIN)
    file = tmp_path / "token"
    file.write_text("hunter2\n")
    monkeypatch.setenv("AM_TOKEN", "hunter2")
    for notifier in (to("http://am", bearer_file=str(file)), to("http://am", bearer_env="AM_TOKEN")):
        request = notifier.request("msg_1", body, BEGIN)
        assert request.headers["authorization"] == "Bearer hunter2"
        assert "hunter2" not in repr(request) + repr(notifier)
    assert "authorization" not in to("http://am").request("msg_1", body, BEGIN).headers
    file.write_text("hunter2 \n hunter3")
    for missing in (to("http://am", bearer_file=str(file)), to("http://am", bearer_env="GONE")):
        with pytest.raises(SecretError, match=r"token|GONE") as caught:
            missing.request("msg_1", body, BEGIN)
        assert "hunter" not in str(caught.value)


def test_it_is_asked_for_no_action() -> None:
    with pytest.raises(CannotSendError, match="alerts only"):
        to("http://am").request("msg_1", b'{"type":"telltale.rollback.requested"}', BEGIN)


@pytest.mark.parametrize("url", ["http://am:9093", "http://am:9093/", "http://am:9093/prefix/"])
def test_the_path_follows_the_prefix(url: str) -> None:
    request = to(url).request("msg_1", alert_body(FIRING, "found", BEGIN), BEGIN)
    assert request.url == url.rstrip("/") + "/api/v2/alerts"
    assert urlsplit(request.url).hostname == "am"
    assert json.loads(request.body)[0]["endsAt"] == (BEGIN + FIRES_FOR).isoformat()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "ftp://am/"}, "http:// or https://"),
        ({"url": "http://user:hunter2@am/"}, "no user name"),
        ({"url": "http://am:9093/api/v2/alerts"}, "without /api/v2/alerts"),
        ({"url": "http://am:9093/?key=hunter2"}, "Alertmanager itself"),
        ({"bearer_env": "A", "bearer_file": "b"}, "bearer_file or bearer_env, not both"),
        ({"page_url": "telltale.example"}, "page_url must begin"),
        ({"allow_networks": ("10.0.0.1/8",)}, "allow_networks"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_one_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        to(**{"url": "http://am:9093", **settings})
    assert "hunter2" not in str(caught.value)
