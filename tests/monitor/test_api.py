"""The API over a real socket: what it takes, what it answers, and whom it lets in."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import urllib3
from given import NOON, ServiceMaker, ndjson, prediction

from alerts.ledger import BadCallbackError
from alerts.reports import read_report
from monitor.api import check_exposure
from monitor.config import ApiKey, ConfigError
from monitor.running import listening, serve
from monitor.service import Service

Answer = tuple[int, Any]


class Client:
    """Calls one running service."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pool = urllib3.PoolManager(retries=False, timeout=30)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        given = {k.replace("_", "-"): v for k, v in headers.items()}
        answer = self._pool.request(method, self.url + path, body=body or None, headers={**self._headers, **given})
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(answer.data) if "json" in kind else answer.data.decode()

    def close(self) -> None:
        self._pool.clear()


@contextlib.contextmanager
def running(service: Service, key: str = "") -> Iterator[Client]:
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        client = Client(url, key)
        yield client
        client.close()


@pytest.fixture
def client(make_service: ServiceMaker) -> Iterator[Client]:
    with running(make_service()) as client:
        yield client


def test_events_are_answered_when_they_are_there(client: Client) -> None:
    body = ndjson([prediction(i, NOON) for i in range(20)]) + b"\nnot json"
    status, answer = client.call("POST", "/v1/events", body)
    assert status == 200
    assert answer["accepted"] == 20
    assert [r["line"] for r in answer["rejected"]] == [21]
    assert client.call("GET", "/v1/status")[1]["rows"]["predictions"] == 20


def test_an_idempotency_key_makes_a_retry_harmless(client: Client) -> None:
    for _ in range(2):
        client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]), Idempotency_Key="once")
    assert client.call("GET", "/v1/status")[1]["rows"]["predictions"] == 1


def test_a_body_that_is_too_large_is_refused(make_service: ServiceMaker) -> None:
    with running(make_service(sources={"http": {"max_body_bytes": 2000}})) as client:
        status, answer = client.call("POST", "/v1/events", b"x" * 3000)
    assert (status, answer) == (413, {"detail": "the body has more than 2000 bytes; send smaller batches"})


def test_the_fleet_and_the_servers(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(i, NOON - timedelta(minutes=5)) for i in range(9)]))
    status, places = client.call("GET", "/v1/models/m/fleet")
    assert status == 200
    assert {(p["server"], p["version"], p["rows"], p["serving"]) for p in places} == {
        (f"pod-{i}", "1", 3, True) for i in range(3)
    }
    servers = client.call("GET", "/v1/servers")[1]
    since = (NOON - timedelta(minutes=5)).isoformat()
    assert [s["serves"] for s in servers] == [[{"model": "m", "version": "1", "since": since}]] * 3
    assert [s["arrival_delay_seconds"] for s in servers] == [300.0] * 3


def test_an_unknown_model_is_named_with_those_there_are(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]))
    status, answer = client.call("GET", "/v1/models/nope/fleet")
    assert status == 404
    assert answer["detail"] == "model 'nope' is not known in environment 'production'; known: m"


def test_evaluating_gives_findings_and_keeps_them(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(i, NOON - timedelta(minutes=9)) for i in range(300)]))
    status, answer = client.call("POST", "/v1/models/m/evaluate")
    assert status == 200
    volumes = [f["n"] for f in answer["findings"] if f["detector"] == "volume"]
    assert volumes == [300, 300, 300]
    kept = client.call("GET", "/v1/models/m/findings")[1]
    assert {f["id"] for f in kept} == {f["id"] for f in answer["findings"]}


def test_a_reference_over_the_api(client: Client) -> None:
    table = "x,c\n" + "\n".join(f"{i % 7}.0,{'ab'[i % 2]}" for i in range(400))
    status, answer = client.call("POST", "/v1/models/m/reference?name=train.csv", table.encode())
    assert (status, answer["rows"], answer["features"]) == (200, 400, ["x", "c"])
    status, answer = client.call("POST", "/v1/models/m/reference?name=train.csv", b"y\n1\n")
    assert status == 422
    assert "a reference of 'm' needs x, c" in answer["detail"]


def test_the_callback_of_an_unknown_action_is_refused(client: Client) -> None:
    assert client.call("POST", "/v1/actions/act_0/events", b'{"state": "started"}')[0] == 404
    assert client.call("POST", "/v1/actions/act_0/events", b"{")[0] == 400


def test_the_page_health_and_metrics_answer(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]))
    assert client.call("GET", "/healthz") == (200, "ok\n")
    assert client.call("GET", "/readyz") == (200, "ready\n")
    assert "telltale_events_accepted_total 1.0" in client.call("GET", "/metrics")[1]
    status, page = client.call("GET", "/")
    assert status == 200
    assert "<html" in page


def test_the_schema_is_served(client: Client) -> None:
    status, schema = client.call("GET", "/v1/events/schema")
    assert status == 200
    assert "prediction" in json.dumps(schema)


KEYS = [
    {"name": "pods", "key_env": "K1", "scopes": ["ingest"], "models": ["m"]},
    {"name": "people", "key_env": "K2", "scopes": ["read"]},
    {"name": "root", "key_env": "K3", "scopes": ["admin"]},
]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", {"ingest": 401, "other model": 401, "read": 401, "admin": 401}),
        ("wrong", {"ingest": 401, "other model": 401, "read": 401, "admin": 401}),
        ("pods-key", {"ingest": 200, "other model": 200, "read": 403, "admin": 403}),
        ("people-key", {"ingest": 403, "other model": 403, "read": 200, "admin": 403}),
        ("root-key", {"ingest": 200, "other model": 200, "read": 200, "admin": 200}),
    ],
)
def test_a_key_opens_what_its_scopes_say(
    key: str, expected: dict[str, int], make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, secret in (("K1", "pods-key"), ("K2", "people-key"), ("K3", "root-key")):
        monkeypatch.setenv(name, secret)
    service = make_service(api_keys=KEYS)
    service.take(ndjson([prediction(1, NOON)]), "http")
    with running(service, key) as client:
        found = {
            "ingest": client.call("POST", "/v1/events", ndjson([prediction(2, NOON)]))[0],
            "other model": client.call("POST", "/v1/events", ndjson([prediction(2, NOON, model="n")]))[0],
            "read": client.call("GET", "/v1/models/m/fleet")[0],
            "admin": client.call("POST", "/v1/models/m/evaluate")[0],
        }
        assert client.call("GET", "/healthz")[0] == 200
        by_browser = base64.b64encode(f"me:{key}".encode()).decode()
        page = client.call("GET", "/", Authorization=f"Basic {by_browser}")[0]
    assert page == expected["read"]
    assert found == expected


@pytest.fixture
def bound(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A caller whose key is for model m only, at a service that also has model n."""
    monkeypatch.setenv("K1", "bound-key")
    key = {"name": "team", "key_env": "K1", "scopes": ["ingest", "read"], "models": ["m"]}
    service = make_service(api_keys=[key])
    service.take(ndjson([prediction(1, NOON), prediction(2, NOON, model="n")]), "http")
    with running(service, "bound-key") as client:
        yield client


def test_a_bound_key_writes_to_its_models_only(bound: Client) -> None:
    others = [prediction(3, NOON, model="n"), prediction(4, NOON)]
    status, answer = bound.call("POST", "/v1/events", ndjson(others))
    assert (status, answer["accepted"]) == (200, 1)
    assert [(r["line"], r["reason"].partition(":")[0]) for r in answer["rejected"]] == [(1, "forbidden_model")]


def test_a_bound_key_does_not_hide_a_model_behind_a_second_key(bound: Client) -> None:
    line = ndjson([prediction(3, NOON)]).replace(b'"model":"m"', b'"model":"m","model":"n"')
    answer = bound.call("POST", "/v1/events", line)[1]
    assert answer["accepted"] == 0


def test_a_bound_key_does_not_see_what_tells_of_all_models(bound: Client) -> None:
    for path in ("/", "/v1/alerts", "/v1/status", "/v1/servers", "/metrics"):
        status, answer = bound.call("GET", path)
        assert status == 403, path
        assert answer["detail"] == "this tells of all models; the key 'team' is only for m"


def test_a_bound_key_learns_of_no_other_model(bound: Client) -> None:
    assert [m["model"] for m in bound.call("GET", "/v1/models")[1]] == ["m"]
    assert bound.call("GET", "/v1/models/m/fleet")[0] == 200
    assert [bound.call("GET", f"/v1/models/{name}/fleet")[0] for name in ("n", "nope")] == [403, 403]
    status, answer = bound.call("GET", "/v1/models/m/fleet?environment=nowhere")
    assert (status, answer["detail"]) == (404, "the model is not known in this environment")


def test_times_and_places_that_cannot_be_are_refused(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]))
    for path in (
        "/v1/models/m/fleet?at=2026-03-01T00:00:00",
        "/v1/models/m/fleet?at=0001-01-01T00:00:00Z",
        "/v1/models/m/findings?since=9999-12-31T00:00:00Z",
        "/v1/models/m/export?start=0001-01-01T00:00:00Z&end=2026-03-01T00:00:00Z",
        "/v1/servers?at=2200-01-01T00:00:00Z",
        "/v1/alerts?after=-1",
        f"/v1/alerts?after={2**53 + 1}",
    ):
        assert client.call("GET", path)[0] == 422, path


def test_times_at_the_edge_are_answered(client: Client) -> None:
    client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]))
    for at in ("1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z", "1970-01-01T23:00:00%2B23:00"):
        assert client.call("GET", f"/v1/models/m/fleet?at={at}")[0] == 200
        assert client.call("POST", f"/v1/models/m/evaluate?at={at}")[0] == 200


def test_the_last_place_on_the_time_line_is_answered(client: Client) -> None:
    assert client.call("GET", f"/v1/alerts?after={2**53}")[0] == 200


def test_a_report_without_end_is_refused(client: Client) -> None:
    for body in (b"[" * 60_000, b'{"a":' * 10_000):
        assert client.call("POST", "/v1/actions/act_0/events", body)[0] == 400


@pytest.mark.parametrize("name", ["run_url", "deployed_version", "message"])
def test_half_characters_in_a_report_are_refused(name: str) -> None:
    with pytest.raises(BadCallbackError, match=f"{name} holds half of a surrogate pair"):
        read_report({"state": "started", name: "a\ud800"})
    assert read_report({"state": "started", name: "\U0001f600"})[name] == "\U0001f600"


def test_a_page_of_another_site_may_not_send(client: Client) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        status, answer = client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]), Origin=origin)
        assert (status, answer["detail"]) == (403, f"a page at {origin!r} may not send requests here")
        assert client.call("GET", "/v1/status", Origin=origin)[0] == 200
        assert client.call("POST", "/v1/events", ndjson([prediction(1, NOON)]), Origin=client.url)[0] == 200


def test_without_keys_a_name_that_points_here_is_not_answered(client: Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "10.0.0.1"):
        status, answer = client.call("GET", "/v1/status", Host=host)
        assert (status, "without api_keys" in answer["detail"]) == (421, True)


def test_the_names_of_this_machine_are_answered(client: Client) -> None:
    for host in ("localhost", "LocalHost:8300", "127.0.0.2:1", "[::1]:8300"):
        assert client.call("GET", "/v1/status", Host=host)[0] == 200


def test_with_keys_the_service_answers_to_any_name(bound: Client) -> None:
    assert bound.call("GET", "/v1/models", Host="telltale.example")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "myhost"])  # noqa: S104 - it is refused
def test_listening_to_others_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="api_keys"):
        check_exposure(host, ())
    check_exposure(host, (ApiKey(name="a", key_env="X", scopes=("read",)),))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(host, ())
