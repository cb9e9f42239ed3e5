"""What messages say, and how much of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from alerting import BEGIN, action, window

from alerts.incidents import Incident
from alerts.messages import alert_body, rollback_body
from alerts.places import Cause
from alerts.policy import Policy, Verdict

WORST_TEXTS = ["\x00" * 3000, "\U0001f600" * 3000, '"' * 3000, "\\" * 3000]


def scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


@pytest.mark.parametrize("text", WORST_TEXTS)
def test_messages_fit_whatever_the_names_are(text: str) -> None:
    """Standard Webhooks: below 20 kB. GitHub: at most 10 keys. Pipelines: no long scalars."""
    verdict = Verdict(text, "drifted", text, text, text, replace(window(0), environment=text, model=text))
    incident = replace(
        Incident.of(Policy(text, "drift"), verdict), baseline_version=text, features=(text,) * 500, reason=text
    )
    request = action(environment=text, model=text, version=text, target=text)
    bodies = [
        alert_body(incident, "found", BEGIN),
        alert_body(incident, "cleared", BEGIN),
        rollback_body(request, text, "t" * 43, "https://telltale.example"),
    ]
    for body in bodies:
        message = json.loads(body)
        assert len(body) < 20_000
        assert list(message) == ["type", "timestamp", "data"]
        assert len(message["data"]) <= 10
        assert all(len(s) <= 256 for s in scalars(message["data"]) if isinstance(s, str))


def test_an_alert_says_in_a_sentence_what_is_wrong_and_why_it_ended() -> None:
    verdict = Verdict("p", "drifted", "2", "s3", "", window(0))
    incident = replace(Incident.of(Policy("p", "server_outlier"), verdict), features=("age", "income"))
    found = json.loads(alert_body(incident, "found", BEGIN))["data"]["summary"]
    assert found == "server outlier of churn, version 2, server s3: age, income"
    over = replace(incident, reason="server s3 no longer serves")
    cleared = json.loads(alert_body(over, "cleared", BEGIN))["data"]["summary"]
    assert cleared == "server outlier of churn, version 2, server s3 is over: server s3 no longer serves"


def test_an_alert_says_what_changed_and_in_which_place_only() -> None:
    verdict = Verdict("p", "drifted", "", "", "", window(0))
    causes = (Cause("age", "missing", "server s3", 9.0, BEGIN), Cause("income", "location", "", 2.0, BEGIN))
    incident = replace(Incident.of(Policy("p", "drift"), verdict), features=("age", "income"), causes=causes)
    summary = json.loads(alert_body(incident, "found", BEGIN))["data"]["summary"]
    assert summary == "drift of churn: age (missing, only server s3), income (location)"
