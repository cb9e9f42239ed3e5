"""What every adapter must do, whatever its format."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import monitor.adapters
from alerts.kinds import kinds_in
from monitor.adapters import Adapter, AdapterSettings, Sender, Translated
from monitor.decode import decode

NOW = 1_772_366_400.0
KINDS = kinds_in(monitor.adapters)
SENDER = Sender(model="loans", version="1", server="pod-1")
V2_REQUEST = {"id": "r", "inputs": [{"name": "age", "shape": [2, 1], "datatype": "FP32", "data": [30, 40]}]}
V2_RESPONSE = {"id": "r", "outputs": [{"name": "y", "shape": [2], "datatype": "BYTES", "data": ["yes", "no"]}]}
EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "r",
    "ce-source": "http://localhost:9081/",
    "ce-time": "2026-03-01T11:59:00.123456789Z",
    "ce-inferenceservicename": "loans",
}
REQUEST, RESPONSE = (EVENT | {"ce-type": f"org.kubeflow.serving.inference.{half}"} for half in ("request", "response"))
Message = tuple[dict[str, str], bytes]
EXAMPLES: dict[str, list[Message]] = {
    "kserve": [(REQUEST, json.dumps(V2_REQUEST).encode()), (RESPONSE, json.dumps(V2_RESPONSE).encode())],
    "open_inference": [
        ({}, json.dumps({"timestamp": NOW, "request": V2_REQUEST, "response": V2_RESPONSE}).encode()),
    ],
    "bentoml": [
        (
            {},
            b"""{"meta_data": {}, "columns": [{"name": "age", "role": "feature"}, {"name": "y", "role": "prediction"}]}
{"age": 30, "y": "yes", "timestamp": "2026-03-01T11:59:00", "request_id": "r", "trace_id": "0"}
{"age": 40, "y": "no", "timestamp": "2026-03-01T11:59:00", "request_id": "r", "trace_id": "0"}
""",
        )
    ],
}
"""Of each adapter what it is sent for the same two predictions."""


def fed(adapter: Adapter, messages: list[Message], now: float = NOW) -> list[Translated]:
    return [adapter.translate(body, headers, SENDER, now) for headers, body in messages]


def accounted(translated: Translated) -> None:
    """Every line is an event or a refusal, and each says which record it came from."""
    decoded = decode(translated.lines, NOW)
    refused = {reject.row for reject in translated.refused}
    assert len(translated.records) == len(translated.lines)
    assert all(translated.lines[row] == b"" for row in refused)
    assert decoded.accepted + len(decoded.rejects) + len(refused) == len(translated.lines)


def test_every_adapter_is_checked() -> None:
    assert KINDS.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_two_predictions_are_the_same_events_from_any_stack(name: str) -> None:
    translated = fed(KINDS[name](AdapterSettings()), EXAMPLES[name])[-1]
    decoded = decode(translated.lines, NOW)
    assert (translated.refused, decoded.rejects, translated.waiting) == ([], [], False)
    (events,) = decoded.predictions.values()
    seen = [(e["prediction_id"], e["features"], e["prediction"], e["version"]) for e in events]
    assert seen == [("r:0", {"age": 30}, "yes", "1"), ("r:1", {"age": 40}, "no", "1")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_bytes_are_the_same_lines_whenever_they_come(name: str) -> None:
    first = fed(KINDS[name](AdapterSettings()), EXAMPLES[name])[-1]
    again = fed(KINDS[name](AdapterSettings()), EXAMPLES[name], NOW + 10)[-1]
    assert (again.lines, again.identity) == (first.lines, first.identity)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff" * 100_000, b"", b"\n" * 1000, b"null"])
def test_deep_and_huge_bodies_are_accounted_for(name: str, body: bytes) -> None:
    adapter = KINDS[name](AdapterSettings())
    for headers, _ in EXAMPLES[name]:
        accounted(adapter.translate(body, headers, SENDER, NOW))
    for translated in adapter.overdue(NOW + 3600):
        accounted(translated)


# fmt: off
WORDS = [
    "id", "inputs", "outputs", "name", "shape", "datatype", "data", "data_base64", "parameters", "feature_names",
    "error", "instances", "predictions", "request", "response", "timestamp", "model_version", "columns", "meta_data",
    "role", "request_id", "trace_id", "y", "age",
]
# fmt: on
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def mangled(body: bytes, at: float, rubbish: bytes) -> bytes:
    place = int(at * len(body))
    return body[:place] + rubbish + body[place + len(rubbish) :]


@pytest.mark.parametrize("name", EXAMPLES)
@given(data=st.data())
def test_rubbish_is_refused_and_never_an_exception(name: str, data: st.DataObject) -> None:
    adapter = KINDS[name](AdapterSettings())
    for headers, body in EXAMPLES[name]:
        structured: Any = data.draw(JSON)
        head, _, _ = body.partition(b"\n")
        bodies = st.sampled_from(
            [body, head + b"\n" + json.dumps(structured).encode(), json.dumps(structured).encode()]
        )
        wild = mangled(data.draw(bodies), data.draw(st.floats(0, 1)), data.draw(st.binary(max_size=5)))
        dropped = data.draw(st.sets(st.sampled_from(sorted(headers)))) if headers else set()
        told = {k: v for k, v in headers.items() if k not in dropped}
        told |= data.draw(
            st.dictionaries(st.sampled_from(["ce-metadata", "ce-annotations", "content-type"]), st.text())
        )
        accounted(adapter.translate(wild, told, SENDER, NOW))
    for translated in adapter.overdue(NOW + 3600):
        accounted(translated)


@pytest.mark.parametrize("name", EXAMPLES)
@given(part=st.sampled_from(["request", "response"]), value=JSON)
def test_any_json_in_the_place_of_a_tensor_is_accounted_for(name: str, part: str, value: Any) -> None:
    adapter = KINDS[name](AdapterSettings())
    tensor = {"name": "t", "shape": [1], "datatype": "FP32", "data": [1]}
    wild = tensor | value if isinstance(value, dict) else value
    bodies = {"request": V2_REQUEST | {"inputs": [wild]}, "response": V2_RESPONSE}
    if part == "response":
        bodies = {"request": V2_REQUEST, "response": V2_RESPONSE | {"outputs": [tensor, wild]}}
    adapter.translate(json.dumps(bodies["request"]).encode(), REQUEST, SENDER, NOW)
    accounted(adapter.translate(json.dumps(bodies["response"]).encode(), RESPONSE, SENDER, NOW))
    accounted(adapter.translate(json.dumps(bodies | {"timestamp": NOW}).encode(), {}, SENDER, NOW))
