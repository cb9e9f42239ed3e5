"""KServe's logger, as its source has it: one CloudEvent a direction, in binary mode, joined by their id."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
import urllib3
from given import NOON, ServiceMaker, StillClock
from processes import wait_until

from monitor.adapters import AdapterSettings, FullError, Sender
from monitor.adapters.kserve import Kserve
from monitor.running import listening, scheduled, serve
from monitor.service import Service
from monitor.store import StoreError

V1 = {"instances": [[1.5, 2.0], [3.0, 4.0]]}, {"predictions": [0.25, 0.75]}
MINUTE = timedelta(minutes=1)
FIRST = Sender(version="1")
Settings = dict[str, Any]
Half = tuple[dict[str, str], bytes]
_ids = itertools.count()


def halves(
    request: Any = V1[0], response: Any = V1[1], event_id: str = "", took_ms: float = 12.5, **more: str
) -> tuple[Half, Half]:
    """The two events of a prediction that began a second before noon."""
    common = {
        "ce-specversion": "1.0",
        "ce-id": event_id or f"e{next(_ids)}",
        "ce-source": "http://localhost:9081/",
        "ce-inferenceservicename": "loans",
        "ce-namespace": "bank",
        "ce-component": "predictor",
        "ce-endpoint": "",
        "ce-metadata": '{"X-Model-Version":["7"]}',
        "ce-annotations": '{"bank/version":"2026-02"}',
        "ce-recordedtime": "2026-03-01T12:00:00.5Z",
        "content-type": "application/json",
        **{f"ce-{name}": value for name, value in more.items()},
    }
    asked, answered = NOON - timedelta(seconds=1), NOON - timedelta(seconds=1) + timedelta(milliseconds=took_ms)
    kind = "org.kubeflow.serving.inference"
    return (
        ({**common, "ce-type": f"{kind}.request", "ce-time": go_time(asked)}, json.dumps(request).encode()),
        ({**common, "ce-type": f"{kind}.response", "ce-time": go_time(answered)}, json.dumps(response).encode()),
    )


def go_time(at: Any) -> str:
    """Nanoseconds, as Go writes them."""
    return str(at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z")


def taken(service: Service, *sent: Half, sender: Sender = FIRST) -> list[dict[str, Any] | None]:
    receipts = [service.foreign.take("kserve", body, headers, sender) for headers, body in sent]
    return [receipt.to_dict() if receipt else None for receipt in receipts]


def rows(service: Service) -> list[dict[str, Any]]:
    sql = (
        "SELECT p.prediction_id AS id, p.model AS model, p.version AS version, p.server AS server, p.failed AS failed, "
        "p.error AS error, p.latency_ms AS latency, p.score AS score, p.label AS label, f.num AS num "
        "FROM predictions AS p FINAL LEFT JOIN features AS f FINAL "
        "ON p.source = f.source AND p.batch = f.batch AND p.row = f.row ORDER BY id"
    )
    return service.store.select(sql).to_dicts()


def refused(service: Service) -> list[str]:
    return service.store.select("SELECT reason FROM dead_letters FINAL ORDER BY reason")["reason"].to_list()


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    return make_service()


def test_request_and_response_become_predictions(service: Service) -> None:
    waits, done = taken(service, *halves(event_id="a"))
    assert waits is None
    assert done == {"accepted": 2, "rejected": []}
    first, second = rows(service)
    assert first == {
        "id": "a:0", "model": "loans", "version": "1", "server": "loans-predictor", "failed": False, "error": "",
        "latency": 12.5, "score": 0.25, "label": "", "num": [1.5, 2.0],
    }  # fmt: skip
    assert (second["id"], second["num"], second["score"]) == ("a:1", [3.0, 4.0], 0.75)


def test_the_response_may_come_first(service: Service) -> None:
    request, response = halves()
    assert taken(service, response, request) == [None, {"accepted": 2, "rejected": []}]


def test_what_is_sent_again_counts_once(service: Service) -> None:
    request, response = halves()
    answers = taken(service, request, request, response, response, request)
    assert [a and a["accepted"] for a in answers] == [None, None, 2, 0, 0]
    assert len(rows(service)) == 2


def test_an_exchange_sent_again_leaves_what_its_batch_says_of_itself(service: Service) -> None:
    request, response = halves()
    taken(service, request, response)
    says = "SELECT predictions, rejected FROM batches FINAL WHERE source = 'kserve'"
    assert service.store.select(says).to_dicts() == [{"predictions": 2, "rejected": 0}]
    assert taken(service, response, request) == [{"accepted": 0, "rejected": []}] * 2
    assert service.store.select(says).to_dicts() == [{"predictions": 2, "rejected": 0}]
    assert service.audit(NOON - MINUTE * 120, None, repair=False)["disagreements"] == []


def test_a_response_sent_again_before_it_was_durable_is_the_same_batch(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, response = halves()

    def refuse(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as away:
        away.setattr(service, "take_batch", refuse)
        with pytest.raises(StoreError):
            taken(service, request, response)
    assert taken(service, response) == [{"accepted": 2, "rejected": []}]
    assert len(rows(service)) == 2


def test_what_the_store_did_not_take_is_taken_in_later_though_nobody_sends_it_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as away:
        away.setattr(service, "take_batch", refuse)
        with pytest.raises(StoreError):
            taken(service, *halves())
    assert service.foreign.take_overdue(NOON + MINUTE) == 1
    assert [r["failed"] for r in rows(service)] == [False, False]


def test_one_id_at_two_places_is_two_exchanges(service: Service) -> None:
    places = (("source", "pod-1"), ("source", "pod-2"), ("component", "transformer"), ("namespace", "other"))
    for name, value in places:
        for headers, body in halves(event_id="same"):
            taken(service, (headers | {f"ce-{name}": value}, body))
    assert len(rows(service)) == 2 * len(places)
    assert {r["server"] for r in rows(service)} == {"pod-1", "pod-2", "loans-transformer", "loans-predictor"}


def test_a_request_without_a_response_has_failed(service: Service) -> None:
    request, response = halves()
    taken(service, request)
    assert service.foreign.take_overdue(NOON + MINUTE / 2) == 0
    assert service.foreign.take_overdue(NOON + MINUTE) == 1
    assert service.foreign.take_overdue(NOON + MINUTE) == 0
    assert [(r["failed"], r["error"]) for r in rows(service)] == [(True, "no response was logged within 60 s")] * 2
    (late,) = taken(service, response)
    assert late is not None
    assert late["rejected"] == [
        {"line": 1, "reason": "late: the response came after the request had been taken in without it"}
    ]
    assert [r["failed"] for r in rows(service)] == [True, True]


def told(service: Service, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(f"telltale_{name}", labels)


def test_halves_that_wait_and_those_that_stay_alone_are_counted(service: Service) -> None:
    (request, _), (_, response), both = halves(), halves(), halves()
    taken(service, request, response, *both)
    assert told(service, "waiting_halves") == 2
    assert told(service, "lone_halves_total", half="request") is None
    service.foreign.take_overdue(NOON + MINUTE)
    assert told(service, "waiting_halves") == 0
    assert [told(service, "lone_halves_total", half=half) for half in ("request", "response")] == [1, 1]


def test_what_had_both_halves_when_the_store_was_away_was_never_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as away:
        away.setattr(service, "take_batch", refuse)
        with pytest.raises(StoreError):
            taken(service, *halves())
    assert told(service, "waiting_halves") == 0
    assert service.foreign.take_overdue(NOON + MINUTE) == 1
    assert told(service, "lone_halves_total", half="request") is None


def test_where_only_requests_are_logged_they_are_no_failures(make_service: ServiceMaker) -> None:
    service = make_service(adapters={"kserve": {"unanswered": "ok", "join_within": "5s"}})
    taken(service, halves()[0])
    assert service.foreign.take_overdue(NOON + timedelta(seconds=5)) == 1
    assert [(r["failed"], r["error"]) for r in rows(service)] == [(False, "")] * 2


def test_a_response_without_a_request_is_a_dead_letter(service: Service) -> None:
    taken(service, halves()[1])
    assert service.foreign.take_overdue(NOON + MINUTE) == 1
    assert (rows(service), refused(service)) == ([], ["no_request"])


def test_what_waits_is_bounded_by_number_and_by_bytes() -> None:
    wide = {"instances": [["x" * 2000]]}
    for limits in ({"most_waiting": 2}, {"most_waiting_bytes": 7000}):
        adapter = Kserve(AdapterSettings.model_validate({"kserve": limits}))
        sent = [halves(wide) for _ in range(3)]
        for request, _ in sent[:2]:
            assert adapter.translate(request[1], request[0], Sender(version="1"), 0).waiting
        with pytest.raises(FullError, match="2 events wait for their other half"):
            adapter.translate(sent[2][0][1], sent[2][0][0], Sender(version="1"), 0)
        answered = adapter.translate(sent[0][1][1], sent[0][1][0], Sender(version="1"), 0)
        assert not answered.waiting
        adapter.settled(answered)
        assert adapter.translate(sent[2][0][1], sent[2][0][0], Sender(version="1"), 0).waiting


def test_attributes_count_as_what_waits_or_are_not_held_at_all() -> None:
    settings = AdapterSettings.model_validate({"kserve": {"most_waiting_bytes": 50_000}})
    (headers, body), _ = halves(blob="x" * 100_000)
    event = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    structured = json.dumps({**event, "data": json.loads(body)}).encode()
    for sent in ((body, headers), (structured, {"content-type": "application/cloudevents+json"})):
        assert Kserve(settings).translate(*sent, FIRST, 0).waiting
    (headers, body), _ = halves(annotations="x" * 100_000)
    with pytest.raises(FullError):
        Kserve(settings).translate(body, headers, FIRST, 0)


@pytest.mark.parametrize(
    ("settings", "sender", "response", "version"),
    [
        ({}, Sender(version="url"), {}, "url"),
        ({"version_annotation": "bank/version"}, Sender(), {}, "2026-02"),
        ({"version_header": "x-model-version"}, Sender(), {}, "7"),
        ({"version_header": "x-other"}, Sender(), {"model_version": "body"}, "body"),
    ],
)
def test_the_version_is_found(
    make_service: ServiceMaker, settings: Settings, sender: Sender, response: Settings, version: str
) -> None:
    service = make_service(adapters={"kserve": settings})
    taken(service, *halves(response=V1[1] | response), sender=sender)
    assert {r["version"] for r in rows(service)} == {version}


def test_without_a_version_it_says_where_to_name_one(service: Service) -> None:
    _, answer = taken(service, *halves(), sender=Sender())
    assert answer is not None
    assert "?version=" in answer["rejected"][0]["reason"]
    assert refused(service) == ["missing_key"]


def test_loggers_that_stamp_when_they_send_tell_no_latency(service: Service) -> None:
    taken(service, *halves(recordedtime=""))
    assert [r["latency"] for r in rows(service)] == [12.5, 12.5]
    for headers, body in halves():
        del headers["ce-recordedtime"]
        taken(service, (headers, body))
    assert sum(pl.Series([r["latency"] for r in rows(service)]).is_nan()) == 2


@pytest.mark.parametrize(
    ("response", "score", "label"),
    [
        ({"predictions": ["yes"]}, None, "yes"),
        ({"predictions": [[0.2, 0.8]]}, 0.8, "yes"),
        ({"predictions": [{"label": "no", "score": 0.3}]}, 0.3, "no"),
        ({"outputs": [{"name": "y", "shape": [1], "datatype": "BYTES", "data": ["no"]}]}, None, "no"),
    ],
)
def test_answers_of_every_shape(
    make_service: ServiceMaker, response: Settings, score: float | None, label: str
) -> None:
    service = make_service(
        adapters={"feature_names": {"loans": ["age"]}, "class_names": {"loans": ["no", "yes"]}},
        models={"loans": {"features": {"age": "numeric", "city": "categorical"}}},
    )
    taken(service, *halves({"instances": [{"age": 3, "city": "x"}]}, response))
    (row,) = rows(service)
    assert (row["label"], None if row["score"] != row["score"] else row["score"]) == (label, score)
    assert row["num"] == [3.0]


def test_structured_events_are_read_too(service: Service) -> None:
    for number, (headers, body) in enumerate(halves()):
        event = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
        data = {"data": json.loads(body)} if number else {"data_base64": base64.b64encode(body).decode()}
        sent = {"content-type": "application/cloudevents+json; charset=utf-8"}, json.dumps(event | data).encode()
        taken(service, sent)
    assert [r["latency"] for r in rows(service)] == [12.5, 12.5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ce-id": ""}, "missing_key: the CloudEvent lacks id"),
        ({"ce-type": "org.other"}, "unknown_type: type is 'org.other'"),
        ({"ce-time": "yesterday"}, "bad_timestamp: time is 'yesterday'"),
    ],
)
def test_a_wrong_event_is_refused_at_once(service: Service, change: dict[str, str], reason: str) -> None:
    (headers, body), _ = halves()
    (answer,) = taken(service, (headers | change, body))
    assert answer is not None
    assert answer["rejected"][0]["reason"].startswith(reason)
    assert refused(service) == [reason.partition(":")[0]]


@pytest.mark.parametrize(
    ("request_", "response", "reason"),
    [
        ({"instances": [[1], [2]]}, {"predictions": [1]}, "bad_shape: the request has 2 rows and the response 1"),
        ({"rows": []}, {"predictions": [1]}, "bad_shape: inputs is no list"),
        ([1], {"predictions": [1]}, "not_an_object: the request is JSON but no object"),
        ({"instances": [[1]]}, "text", "not_an_object: the response is JSON but no object"),
    ],
)
def test_bodies_that_do_not_fit_are_one_dead_letter(
    service: Service, request_: Any, response: Any, reason: str
) -> None:
    _, answer = taken(service, *halves(request_, response))
    assert answer is not None
    assert answer["rejected"][0]["reason"].startswith(reason)
    assert (rows(service), len(refused(service))) == ([], 1)


@contextlib.contextmanager
def served(service: Service) -> Iterator[str]:
    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        yield url


def test_over_http_with_the_keys_of_any_sender(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOANS_KEY", "hunter2")
    keys = [{"name": "loans", "key_env": "LOANS_KEY", "scopes": ["ingest"], "models": ["loans"]}]
    with served(make_service(api_keys=keys)) as url, urllib3.PoolManager(retries=False) as pool:

        def post(half: Half, key: str = "hunter2", path: str = "kserve?version=3") -> tuple[int, Any]:
            # The logger has no setting for a header, but its HTTP client sends what the URL names before the host.
            basic = urllib3.util.make_headers(basic_auth=f"any:{key}")
            answer = pool.request("POST", f"{url}/v1/adapters/{path}", body=half[1], headers=half[0] | basic)
            return answer.status, answer.json()

        request, response = halves()
        assert post(request, key="wrong")[0] == 401
        assert post(request) == (202, {"accepted": 0, "rejected": []})
        assert post(response) == (200, {"accepted": 2, "rejected": []})
        assert post(request, path="kserve?colour=red")[0] == 422
        assert post(request, path="sagemaker") == (
            404, {"detail": "'sagemaker' is not an adapter; known: bentoml, kserve, open-inference"},
        )  # fmt: skip
        request, response = halves(inferenceservicename="secret")
        post(request)
        assert "forbidden_model" in post(response)[1]["rejected"][0]["reason"]


def test_http_says_when_too_much_waits(make_service: ServiceMaker) -> None:
    service = make_service(adapters={"kserve": {"most_waiting": 1}})
    with served(service) as url, urllib3.PoolManager(retries=False) as pool:
        sent = [halves()[0] for _ in range(2)]
        answers = [pool.request("POST", f"{url}/v1/adapters/kserve", body=b, headers=h) for h, b in sent]
        assert [a.status for a in answers] == [202, 503]
        assert "wait for their other half" in answers[1].json()["detail"]
        assert told(service, "turned_away_total") == 1


def test_a_batch_is_named_by_its_event_in_every_process(make_service: ServiceMaker) -> None:
    request, response = halves()
    for _ in range(2):  # the second time nothing is remembered, as after a crash
        taken(make_service(), request, response)
    assert len(rows(make_service())) == 2


def test_the_schedule_takes_in_what_waited(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service()
    taken(service, halves()[0])
    clock.at = NOON + MINUTE
    with scheduled(service, judge=False):
        wait_until(lambda: len(rows(service)) == 2, "the request is taken in", 30)
