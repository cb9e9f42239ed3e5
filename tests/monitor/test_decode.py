"""Every line is accepted or rejected with a reason, and none disturbs its neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from monitor.decode import decode, epoch_seconds, label_text, split_lines
from monitor.events import FUTURE_LIMIT_SECONDS, MAX_EVENT_BYTES, json_schema

ARRIVED = 1_800_000_000.0
PREDICTION = {
    "type": "prediction",
    "model": "m",
    "version": "1",
    "server": "s",
    "prediction_id": "p",
    "timestamp": ARRIVED - 10,
    "features": {"x": 1.5},
    "prediction": 1,
}
LABEL = {"type": "label", "model": "m", "prediction_id": "p", "label": 1, "timestamp": ARRIVED}
RELEASE = {"type": "release", "model": "m", "version": "2", "action": "deploy", "timestamp": "2026-01-01T00:00:00Z"}
HEALTH = {"type": "health", "server": "s", "timestamp": 1.5, "ok": True, "latency_ms": 3}


def reason_of(raw: bytes) -> str:
    decoded = decode([raw], ARRIVED)
    assert decoded.accepted + len(decoded.rejects) == 1
    assert all(r.raw == raw for r in decoded.rejects)
    return decoded.rejects[0].reason if decoded.rejects else "accepted"


def changed(base: Mapping[str, object], **fields: object) -> bytes:
    event = {**base, **fields}
    return json.dumps({k: v for k, v in event.items() if v != "REMOVE"}).encode()


@pytest.mark.parametrize("event", [PREDICTION, LABEL, RELEASE, HEALTH])
def test_a_right_event_of_each_kind_is_accepted(event: dict[str, object]) -> None:
    assert reason_of(json.dumps(event).encode()) == "accepted"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"model": "\\ud800", "type": "label"}', "not_utf8"),
        (b"[" * 100_000, "not_json"),
        (b"17", "not_an_object"),
        (b'"' + b"x" * MAX_EVENT_BYTES + b'"', "too_large"),
        (changed(PREDICTION, type="guess"), "unknown_type"),
        (changed(PREDICTION, type=["prediction"]), "unknown_type"),
        (changed(PREDICTION, model="REMOVE"), "missing_key"),
        (changed(PREDICTION, server=""), "missing_key"),
        (changed(PREDICTION, prediction_id=None), "missing_key"),
        (changed(PREDICTION, version={"major": 1}), "bad_field"),
        (changed(PREDICTION, timestamp="REMOVE"), "missing_key"),
        (changed(PREDICTION, timestamp="yesterday"), "bad_timestamp"),
        (changed(PREDICTION, timestamp="2026-01-01T00:00:00"), "bad_timestamp"),
        (changed(PREDICTION, timestamp=True), "bad_timestamp"),
        (changed(PREDICTION, timestamp=1e300), "bad_timestamp"),
        (changed(PREDICTION, timestamp=ARRIVED + FUTURE_LIMIT_SECONDS + 1), "in_the_future"),
        (changed(PREDICTION, features=[1]), "bad_field"),
        (changed(PREDICTION, status="fine"), "bad_field"),
        (changed(PREDICTION, role="ghost"), "bad_field"),
        (changed(PREDICTION, sampling_fraction=0), "bad_field"),
        (changed(PREDICTION, sampling_fraction=1.5), "bad_field"),
        (changed(PREDICTION, environment=7), "bad_field"),
        (changed(LABEL, label="REMOVE"), "missing_key"),
        (changed(LABEL, label=[1]), "bad_field"),
        (changed(LABEL, outcomes={"cost": "high"}), "bad_field"),
        (changed(RELEASE, action="yeet"), "bad_field"),
        (changed(RELEASE, servers="s"), "bad_field"),
        (changed(HEALTH, ok="yes"), "bad_field"),
        (changed(HEALTH, latency_ms=None), "bad_field"),
        (changed(HEALTH, status_code=99999), "bad_field"),
    ],
)
def test_a_wrong_event_is_rejected_with_its_reason(raw: bytes, reason: str) -> None:
    assert reason_of(raw) == reason


@pytest.mark.parametrize(
    "raw",
    [
        changed(PREDICTION, timestamp=ARRIVED + FUTURE_LIMIT_SECONDS),
        changed(PREDICTION, timestamp=0),
        changed(PREDICTION, timestamp="1996-05-07T00:00:00+10:00"),
        changed(PREDICTION, version=3, prediction_id=17),
        changed(PREDICTION, features=None, prediction=None),
        changed(PREDICTION, features={"x": None, "y": [1], "z": {"a": 1}}),
        changed(PREDICTION, prediction={"score": {"a": 0.2, "b": 0.8}}),
        changed(LABEL, label=None),
        b'{"type": "label", "model": "m", "prediction_id": "p", "timestamp": 1, "label": 1, "outcomes": {"x": NaN}}',
    ],
)
def test_an_odd_but_right_event_is_accepted(raw: bytes) -> None:
    assert reason_of(raw) == "accepted"


def test_neighbours_of_a_bad_line_are_kept_and_rows_are_line_numbers() -> None:
    good = json.dumps(PREDICTION).encode()
    decoded = decode([good, b"", b"{", good], ARRIVED)
    assert [e["row"] for e in decoded.predictions["production", "m"]] == [0, 3]
    assert [r.row for r in decoded.rejects] == [2]


def test_unknown_models_can_be_refused() -> None:
    decoded = decode([json.dumps(PREDICTION).encode(), json.dumps(HEALTH).encode()], ARRIVED, {"other"}.__contains__)
    assert [r.reason for r in decoded.rejects] == ["unknown_model"]
    assert len(decoded.health) == 1


def test_decisions_depend_on_arrival_only() -> None:
    late = changed(PREDICTION, timestamp=ARRIVED + 400)
    assert decode([late], ARRIVED).rejects
    assert not decode([late], ARRIVED + 200).rejects


@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_raise_and_every_line_is_accounted_for(lines: list[bytes]) -> None:
    decoded = decode(lines, ARRIVED)
    filled = [x for x in lines if x and not x.isspace()]
    assert decoded.accepted + len(decoded.rejects) == len(filled)


OPTIONAL = (
    *("environment", "role", "status", "error", "sampling_fraction", "segments", "entity_id", "resources"),
    *("outcomes", "status_code", "servers", "by"),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([PREDICTION, LABEL, RELEASE, HEALTH]),
    st.sampled_from(
        sorted({*PREDICTION, *LABEL, *RELEASE, *HEALTH, "role", "status", "segments", "resources", "outcomes"})
    ),
    JSON_VALUES,
)
def test_any_value_in_any_field_is_accepted_or_rejected(base: dict[str, object], name: str, value: object) -> None:
    decoded = decode([json.dumps({**base, name: value}).encode()], ARRIVED)
    assert decoded.accepted + len(decoded.rejects) == 1


def test_an_object_an_array_and_lines_are_the_same() -> None:
    one = json.dumps(PREDICTION)
    assert [orjson.loads(x) for x in split_lines(f"[{one}, {one}]".encode())] == [PREDICTION, PREDICTION]
    assert [orjson.loads(x) for x in split_lines(json.dumps(PREDICTION, indent=1).encode())] == [PREDICTION]
    assert len(split_lines(f"{one}\n{one}".encode())) == 2


def test_a_broken_array_is_rejected_and_not_raised() -> None:
    decoded = decode(split_lines(b'[{"type": "label"}, '), ARRIVED)
    assert decoded.accepted == 0
    assert len(decoded.rejects) == 1


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (1.0, "1"), (True, "1"), (0.5, "0.5"), ("a", "a"), (None, None)])
def test_labels_of_several_types_compare_equal(value: object, text: str | None) -> None:
    assert label_text(value) == text


def test_timestamps() -> None:
    assert epoch_seconds("1970-01-01T01:00:00+01:00") == 0
    assert epoch_seconds(float("nan")) is None
    assert epoch_seconds(10**400) is None


FIELDS = sorted({*PREDICTION, *LABEL, *RELEASE, *HEALTH, *OPTIONAL} - {"timestamp"})
SCHEMA = Draft202012Validator(json.loads(json_schema()))


@pytest.mark.parametrize("event", [PREDICTION, LABEL, RELEASE, HEALTH])
def test_the_schema_takes_right_events(event: dict[str, object]) -> None:
    assert SCHEMA.is_valid(event)


@settings(max_examples=600)
@given(st.sampled_from([PREDICTION, LABEL, RELEASE, HEALTH]), st.sampled_from(FIELDS), JSON_VALUES)
def test_the_schema_agrees_with_the_decoder(base: dict[str, object], name: str, value: object) -> None:
    """Timestamps are left out: the decoder knows the arrival, the schema does not. JSON has no NaN.

    Nor does a schema know whether a large whole number was written as a fraction, and so was rounded.
    """
    text = json.dumps({**base, name: value})
    rounded = isinstance(value, float) and abs(value) >= 2**53
    if "NaN" not in text and "Infinity" not in text and not rounded:
        assert bool(decode([text.encode()], ARRIVED).accepted) == SCHEMA.is_valid(json.loads(text))
