"""The Open Inference Protocol: shapes of every kind, and what a real MLServer answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import serving
import urllib3
from given import NOON, ServiceMaker
from processes import free_port, running

from monitor import adapters
from monitor.adapters import AdapterSettings, Sender
from monitor.adapters.open_inference import OpenInference
from monitor.decode import decode
from monitor.service import Service

AT = NOON.timestamp() - 1
SENDER = Sender(server="pod-1")
MODEL = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Loans(MLModel):
    async def predict(self, payload):
        inputs = {tensor.name: np.asarray(self.decode(tensor)) for tensor in payload.inputs}
        ages = inputs["age"] if "age" in inputs else inputs["x"][:, 0]
        odds = np.clip(np.ravel(ages).astype(float) / 100, 0, 1)
        outputs = [
            StringCodec.encode_output("predict", ["yes" if p > 0.5 else "no" for p in odds]),
            NumpyCodec.encode_output("predict_proba", np.column_stack([1 - odds, odds])),
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""


def tensor(name: str, shape: list[int], data: list[Any], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def exchange(inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    response = {"model_name": "m", "model_version": "1", "id": "r", "outputs": outputs}
    return {"timestamp": AT, "request": {"inputs": inputs}, "response": response, **more}


def events(*exchanges: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    adapter = OpenInference(AdapterSettings.model_validate(settings))
    translated = adapter.translate(json.dumps(exchanges).encode(), {}, SENDER, AT)
    assert translated.refused == []
    decoded = decode(translated.lines, AT)
    assert decoded.rejects == []
    return [event for found in decoded.predictions.values() for event in found]


def features(*inputs: dict[str, Any], **settings: Any) -> list[Any]:
    answers = [tensor("y", [inputs[0]["shape"][0]], [0] * inputs[0]["shape"][0])]
    return [e["features"] for e in events(exchange(list(inputs), answers), **settings)]


def answers(*outputs: dict[str, Any], **settings: Any) -> list[Any]:
    count = outputs[0]["shape"][0]
    return [e["prediction"] for e in events(exchange([tensor("x", [count], [0] * count)], list(outputs)), **settings)]


def test_several_inputs_are_columns() -> None:
    found = features(
        tensor("age", [2, 1], [30, 40]),
        tensor("city", [2], ["a", "b"], "BYTES"),
        tensor("vip", [2], [1, 0], "BOOL"),
        tensor("pair", [2, 2], [[1, 2], [3, 4]]),
    )
    assert found[1] == {"age": 40, "city": "b", "vip": False, "pair_0": 3, "pair_1": 4}


@pytest.mark.parametrize(
    ("more", "settings", "names"),
    [
        ({}, {}, ["x_0", "x_1"]),
        ({}, {"feature_names": {"m": ["age", "income"]}}, ["age", "income"]),
        ({"parameters": {"feature_names": ["a", "b"]}}, {"feature_names": {"m": ["age", "income"]}}, ["a", "b"]),
        ({}, {"feature_names": {"m": ["age"]}}, ["age", "x_1"]),
    ],
)
def test_one_input_of_two_dimensions_has_named_columns(
    more: dict[str, Any], settings: dict[str, Any], names: list[str]
) -> None:
    found = features(tensor("x", [2, 2], [1, 2, 3, 4], **more), **settings)
    assert found == [dict(zip(names, values, strict=True)) for values in ([1, 2], [3, 4])]


def test_an_image_is_no_feature() -> None:
    assert features(tensor("x", [1, 28, 28, 3], [0] * (28 * 28 * 3))) == [{}]


def test_numbers_that_are_none_are_evidence() -> None:
    (found,) = features(tensor("x", [1, 2], [float("nan"), None]))
    assert found["x_0"] != found["x_0"]
    assert found["x_1"] is None


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        ([tensor("y", [1], [3.5])], 3.5),
        ([tensor("y", [1, 1], ["yes"], "BYTES")], "yes"),
        ([tensor("score", [1], [0.7])], 0.7),
        ([tensor("y", [1, 2], [0.25, 0.75])], {"score": {"no": 0.25, "yes": 0.75}}),
        ([tensor("y", [1], [1]), tensor("probability", [1], [0.7])], {"score": 0.7, "label": 1}),
        ([tensor("y", [1, 2], [3.0, 4.0])], [3.0, 4.0]),
    ],
)
def test_outputs_become_a_prediction(outputs: list[Any], wanted: Any) -> None:
    assert answers(*outputs, class_names={"m": ["no", "yes"]}) == [wanted]


def test_a_failed_request_keeps_its_features() -> None:
    failed = {"timestamp": AT, "request": {"id": "q", "inputs": [tensor("x", [1], [5])]}, "model": "m", "version": "2"}
    (event,) = events(failed | {"response": {"error": "out of memory"}})
    assert (event["status"], event["error"], event["features"]) == ("error", "out of memory", {"x": 5})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timestamp": None}, "timestamp is missing"),
        ({"response": None}, "response is missing"),
        ({"request": []}, "an exchange is"),
        ({"response": {"outputs": [], "id": "r", "model_name": "m", "model_version": "1"}}, "outputs is no list"),
        ({"request": {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}}, "binary tensors"),
        ({"request": {"inputs": [tensor("x", [3], [1])]}}, "tensor 'x' has 1 values; its shape is [3]"),
        ({"request": {"inputs": [tensor("x", [-1], [1])]}}, "should be a list of sizes"),
        ({"request": {"inputs": [tensor("x", [0], [])]}}, "has 0 rows"),
        ({"request": {"inputs": [tensor("x", [100_000, 0], [])]}}, "tensor 'x' has rows without a value"),
        (
            {"request": {"inputs": [tensor("a", [1, 2], [1, 2]), tensor("a_0", [1], [9])]}},
            "two columns are called 'a_0'",
        ),
        ({"request": {"inputs": [tensor("a", [1], [1]), tensor("a", [1], [2])]}}, "two of inputs are called 'a'"),
        (
            {"request": {"inputs": [tensor("x", [1, 2], [1, 2], parameters={"feature_names": ["a", "a"]})]}},
            "two columns are called 'a'",
        ),
        ({"request": {"inputs": [tensor("x", [1], [1]), tensor("z", [2], [1, 2])]}}, "different numbers of rows"),
        ({"request": {"inputs": [tensor("x", [2], [1, 2])]}}, "the request has 2 rows and the response 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(change: dict[str, Any], reason: str) -> None:
    right = exchange([tensor("x", [1], [1])], [tensor("y", [1], [1])])
    body = "\n".join(json.dumps(e) for e in (right, right | change, right)).encode()
    translated = OpenInference(AdapterSettings()).translate(body, {}, SENDER, AT)
    (refusal,) = translated.refused
    assert reason in refusal.detail
    assert translated.records == [0, 1, 2]
    assert decode(translated.lines, AT).accepted == 2


def test_what_a_body_becomes_is_bounded_in_events_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "MOST_EVENTS", 5)
    monkeypatch.setattr(adapters, "MOST_BYTES", 5000)

    def read(*exchanges: dict[str, Any]) -> tuple[int, list[str]]:
        body = b"\n".join(json.dumps(e).encode() for e in exchanges)
        translated = OpenInference(AdapterSettings()).translate(body, {}, SENDER, AT)
        assert sum(map(len, translated.lines)) <= 5000
        return decode(translated.lines, AT).accepted, [r.reason for r in translated.refused]

    two, four = (exchange([tensor("x", [n], [1] * n)], [tensor("y", [n], [1] * n)]) for n in (2, 4))
    assert read(two, two) == (4, [])
    assert read(two, four, two) == (4, ["too_large"])
    assert read({**two, "trace_id": "t" * 3000}, two) == (2, ["too_large"])


def test_refusals_are_told_by_the_senders_lines(make_service: ServiceMaker) -> None:
    service = make_service()
    two = [tensor("x", [2], [1, 2])], [tensor("y", [2], [1, 2])]
    body = "\n".join([json.dumps(exchange(*two)), "rubbish", json.dumps(exchange(*two, timestamp=AT + 9e9))]).encode()
    for _ in range(2):
        receipt = service.foreign.take("open-inference", body, {}, SENDER)
        assert receipt is not None
        told = receipt.to_dict()
        assert told["accepted"] == 2
        assert [(r["line"], r["reason"].partition(":")[0]) for r in told["rejected"]] == [
            (2, "not_json"), (3, "bad_timestamp"), (3, "bad_timestamp"),
        ]  # fmt: skip
    counts = service.status()["rows"]
    assert (counts["predictions"], counts["dead_letters"]) == (2, 3)


# MLServer


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real MLServer with one tiny model."""
    commands, folder = serving.environment("mlserver"), tmp_path_factory.mktemp("mlserver")
    (folder / "loans_model.py").write_text(MODEL)
    model = {"name": "loans", "implementation": "loans_model.Loans", "parameters": {"version": "v7"}}
    (folder / "model-settings.json").write_text(json.dumps(model))
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "metrics_dir": str(folder), **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{ports['http_port']}/v2"

    def ready() -> bool:
        try:
            return bool(urllib3.request("GET", f"{url}/models/loans/ready", retries=False, timeout=1).status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    with running([str(commands / "mlserver"), "start", str(folder)], folder / "log.txt", ready):
        yield url


def asked(url: str, inputs: list[Any]) -> dict[str, Any]:
    """An exchange with the server, as a gateway in front of it would send it."""
    request, began = {"inputs": inputs}, time.perf_counter()
    answer = urllib3.request("POST", f"{url}/models/loans/infer", json=request, retries=False, timeout=30)
    took = (time.perf_counter() - began) * 1000
    response = answer.json() if answer.status == 200 else {"error": answer.data.decode()[-200:]}
    return {"timestamp": AT, "request": {"id": "none", **request}, "response": response, "latency_ms": took}


def test_what_mlserver_answers_is_taken_in(mlserver: str, make_service: ServiceMaker) -> None:
    service = make_service(adapters={"class_names": {"loans": ["no", "yes"]}})
    exchanges = [
        asked(mlserver, [tensor("age", [2, 1], [30, 80]), tensor("city", [2], ["a", "b"], "BYTES")]),
        asked(mlserver, [tensor("x", [1, 2], [[30, 1]])]),
        asked(mlserver, [tensor("other", [1], [1])]),
    ]
    assert "model_name" not in exchanges[2]["response"]  # it failed: it has no such input
    body = "\n".join(map(json.dumps, exchanges)).encode()
    sender = Sender(model="loans", server="pod-1")
    receipt = service.foreign.take("open-inference", body, {}, sender)
    assert receipt is not None
    assert receipt.accepted == 3
    assert [r["reason"] for r in receipt.to_dict()["rejected"]] == [
        "missing_key: version is missing; the response has no model_version; send it as ?version=NAME"
    ]
    assert stored(service) == [("v7", "no", 0.7, True), ("v7", "no", 0.7, True), ("v7", "yes", 0.8, True)]
    ids = service.store.select("SELECT prediction_id AS id FROM predictions FINAL")["id"].to_list()
    named = exchanges[0]["response"]["id"]
    assert {f"{named}:0", f"{named}:1"} < set(ids)


def stored(service: Service) -> list[Any]:
    sql = (
        "SELECT version, label, round(score, 6) AS score, latency_ms > 0 AS timed FROM predictions FINAL ORDER BY label"
    )
    return [(v, label, score, bool(timed)) for v, label, score, timed in service.store.select(sql).iter_rows()]
