"""The fast way gives what the slow way gives, for any lines, or leaves them to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from held_rows import by_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor import fast
from monitor.columns import PredictionColumns, prediction_columns, together
from monitor.config import ModelSpec
from monitor.decode import decode

ARRIVED = 1_800_000_000.0
FEATURES = {"x": "numeric", "y": "numeric", "c": "categorical", "role": "categorical"}
SPECS = [
    ModelSpec.model_validate({"features": FEATURES, **more})
    for more in ({}, {"segments": {"plan": ["vip", "free"]}}, {"threshold": 0.5}, {"task": "regression"})
]
EVENT: dict[str, Any] = {
    "type": "prediction",
    "model": "m",
    "version": "1",
    "server": "pod",
    "prediction_id": "p",
    "timestamp": ARRIVED - 10,
    "features": {"x": 1.5, "y": 2, "c": "a", "role": "b"},
    "prediction": {"score": 0.25, "label": "no"},
    "latency_ms": 3.5,
}


@pytest.fixture(autouse=True, scope="module")
def few_lines_will_do() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "LEAST_LINES", 1)
        patch.setattr(fast, "LEAST_ALIKE", 1)
        patch.setattr(fast, "SMALLEST_PIECE", 1)
        patch.setattr(fast, "RARE", 0)
        yield


def read(lines: Sequence[bytes], spec: ModelSpec) -> PredictionColumns | None:
    return fast.read_clean(lines, np.arange(len(lines)), np.full(len(lines), ARRIVED), ("production", "m"), spec)


def slowly(lines: Sequence[bytes], spec: ModelSpec) -> dict[int, dict[str, Any]]:
    events = decode(lines, ARRIVED).predictions.get(("production", "m"))
    return by_row(prediction_columns(events, spec)) if events else {}


def held_equal(lines: Sequence[bytes], spec: ModelSpec) -> int:
    """How many lines went the fast way, after they were found to be what the slow way makes of them."""
    clean = by_row(read(lines, spec))
    slow = slowly(lines, spec)
    assert {row: slow.get(row) for row in clean} == clean
    return len(clean)


def line(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}).encode()


def features(**values: Any) -> dict[str, Any]:
    return {**EVENT["features"], **values}


TEXTS = st.text(max_size=6) | st.sampled_from(["null", '":', "\\", '"', "role", '"role":null', "é", "1", "NaN", "\x00"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -0.0, 2**53, 10**20, 10**400, 1e300, 5e-324])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=2)
TIMES = st.datetimes().map(lambda t: t.isoformat() + "Z") | st.sampled_from(
    [
        *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123+05:30", "2026-01-01 00:00:00Z", "2026-01-01T00:00:60Z"),
        *("2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.1Z", "", "soon"),
        *("0000-01-01T00:00:00Z", "2299-12-31T23:59:59.999999Z", "2300-01-01T00:00:01Z", "2026-01-01T00:00:00-23:59"),
    ]
)
ANSWERS = st.fixed_dictionaries({}, optional={"score": SCALARS, "label": SCALARS, "more": SCALARS}) | VALUES
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "features": st.none()
        | VALUES
        | st.fixed_dictionaries({}, optional=dict.fromkeys([*FEATURES, "new"], SCALARS)).map(lambda f: features(**f)),
        "timestamp": NUMBERS | TIMES,
        "prediction": ANSWERS,
        "latency_ms": VALUES,
        "status": st.sampled_from(["ok", "error", None, "", 1]),
        "role": st.sampled_from(["live", "shadow", None, "", 1]),
        "environment": st.sampled_from(["production", None, "", "staging"]),
        "sampling_fraction": st.sampled_from([None, 1, 0.5, 0.1, 1e-6, 1e-7, 2, True, "1"]) | NUMBERS,
        "segments": st.none() | st.fixed_dictionaries({}, optional={"plan": VALUES, "else": VALUES}),
        "type": st.sampled_from(["prediction", "label", None]),
        **dict.fromkeys(["version", "server", "prediction_id", "error", "entity_id", "model", "trace"], VALUES),
    },
)
SAME_FORM = st.fixed_dictionaries(
    {
        "features": st.fixed_dictionaries(
            {
                "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "y": st.integers(-(2**70), 2**70),
                "c": TEXTS,
                "role": TEXTS,
            }
        ),
        "prediction_id": TEXTS,
        "segments": st.fixed_dictionaries({"plan": st.sampled_from(["vip", "gold", "", None])}),
        "error": TEXTS,
    }
)
SPELLINGS: list[Callable[[bytes], bytes]] = [
    lambda raw: raw,
    lambda raw: raw.replace(b": ", b":").replace(b", ", b","),
    lambda raw: raw.replace(b": ", b" :  "),
    lambda raw: raw.replace(b'"role"', b'"ro\\u006ce"'),
    lambda raw: raw.replace(b'"role"', b'"ROLE"'),
    lambda raw: raw[:-1] + b', "role": null}',
    lambda raw: raw[:-1] + b', "status"\t: null}',
    lambda raw: raw[:-1] + b', "x": 1}',
    lambda raw: raw[:-1] + b', "version": "2"}',
    lambda raw: raw.replace(b'"x":', b'"x": 7, "x":'),
    lambda raw: raw.replace(b'"x":', b'"z": null, "x":'),
    lambda raw: raw + raw,
    lambda raw: raw + b" null " + raw,
    lambda raw: raw.replace(raw, b"null"),
    lambda raw: raw[:-1],
    lambda raw: raw + b"}",
    lambda raw: raw.replace(b"{", b"{\n", 1),
    lambda raw: b" " + raw,
    lambda raw: raw + b"\r",
    lambda raw: raw.replace(b'"pod"', b'"\\ud800"'),
    lambda raw: raw.replace(b'"pod"', b'"\xff"'),
    lambda raw: raw.replace(b"1.5", b"1e400"),
    lambda raw: raw.replace(b"1.5", b"-NaN"),
    lambda raw: raw.replace(b"1.5", b"01"),
    lambda raw: raw.replace(b"1.5", b"-0"),
    lambda raw: b"\xef\xbb\xbf" + raw,
]
LINES = st.builds(lambda change, spell: spell(line(**change)), CHANGES, st.sampled_from(SPELLINGS))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(SPECS), st.lists(LINES, min_size=1, max_size=6))
def test_any_lines_become_the_same_fast_and_slow(spec: ModelSpec, lines: list[bytes]) -> None:
    held_equal(lines, spec)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(SPECS), st.dictionaries(st.integers(1, 12), LINES, max_size=4), st.booleans())
def test_odd_lines_among_good_ones_become_the_same(spec: ModelSpec, odd: dict[int, bytes], in_text: bool) -> None:
    good = line(timestamp="2026-01-01T00:00:00.250Z" if in_text else ARRIVED, prediction=0.5)
    lines = [odd.get(n, good) for n in range(14)]
    read = held_equal(lines, spec)
    misled = sum(n < fast.LOOKED_AT for n in odd) > fast.LOOKED_AT / 2  # as which the others are read
    assert misled or read >= len(lines) - len(odd)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.integers(10**15, int(ARRIVED) * 10**6), min_size=3, max_size=9))
def test_times_in_text_become_the_same_to_the_last_bit(microseconds: list[int]) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [(epoch + timedelta(microseconds=us)).isoformat(timespec="microseconds") for us in microseconds]
    assert held_equal([line(timestamp=t) for t in times], SPECS[0]) == len(times)


@pytest.mark.parametrize("name", ["^x.*$", "^z$", "*", "\x00", "f0", "", "x.y"])
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_names_are_nothing_but_names(name: str, kind: str) -> None:
    segments = {"segments": {name: ["vip"]}}
    spec = ModelSpec.model_validate(
        {"features": {name: kind, "x": "categorical", "f0": kind, "^x.*$": kind}, **segments}
    )
    given = {"x": "a", "f0": 3, "^x.*$": 2, name: 1}
    told = {"score": 0.5, "label": "a", name: 1}
    event = line(features=given, segments={name: "vip", "^.*$": "free"}, prediction=told)
    assert held_equal([event] * 3, spec) == 3


@pytest.mark.parametrize("deep", [20, 300, 900])
def test_what_lies_deep_is_left_to_the_slow_way(deep: int) -> None:
    nested: dict[str, Any] = {}
    for _ in range(deep):
        nested = {"a": nested}
    assert held_equal([line(trace=nested)] * 3, SPECS[0]) == 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(SAME_FORM, min_size=1, max_size=5), st.booleans())
def test_texts_and_numbers_of_all_sorts_become_the_same(changes: list[dict[str, Any]], escaped: bool) -> None:
    events = [{**EVENT, **change} for change in changes]
    held_equal([json.dumps(e, ensure_ascii=escaped).encode("utf-8", "surrogatepass") for e in events], SPECS[1])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.binary(max_size=20).map(lambda b: b"{" + b + b"}"), max_size=5))
def test_no_bytes_raise(lines: list[bytes]) -> None:
    good = line()
    assert held_equal([good, *lines, good], SPECS[0]) >= 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"timestamp": "2026-01-01T00:00:00Z"},
        {"timestamp": "2026-01-01T00:00:00.123456+02:00"},
        {"prediction": "yes"},
        {"prediction": True},
        {"prediction": 3},
        {"prediction": {"score": 0.5}},
        {"prediction": {"label": 1}},
        {"prediction": {"label": False, "score": 1}},
        {"prediction": None},
        {"version": 3, "prediction_id": 17},
        {"features": features(c=3, role=True)},
        {"features": features(c=None, x=None)},
        {"features": None},
        {"environment": "production", "role": "shadow", "status": "error", "error": 'a "b": null'},
        {"segments": {"plan": "vip", "else": 3}, "trace": {"a": 1}, "sampling_fraction": 0.1},
        {"error": "\\ \n é 😀", "entity_id": None},
    ],
)
@pytest.mark.parametrize("spec", SPECS[:3], ids=["plain", "segments", "threshold"])
def test_all_right_forms_go_the_fast_way(fields: dict[str, Any], spec: ModelSpec) -> None:
    assert held_equal([line(**fields)] * 3, spec) == 3


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "segments", "threshold", "regression"])
def test_missing_numbers_as_nan_go_the_fast_way(spec: ModelSpec) -> None:
    given = [features(x=math.nan), features(x=math.nan, y=math.nan), features(x=None), features(x=1e308, y=1e308)]
    assert held_equal([line(features=f, prediction=0.5) for f in given], spec) == len(given)
    others = [line(features=features(c=math.nan)), line(latency_ms=math.nan), line(features=features(y=-math.inf))]
    assert held_equal(others, spec) == 0


@pytest.mark.parametrize("prediction", [7, 0.5, {"score": 2}, {"score": 1, "label": "x"}, None])
def test_answers_of_a_regression_go_the_fast_way(prediction: object) -> None:
    assert held_equal([line(prediction=prediction)] * 3, SPECS[3]) == 3


def test_what_differs_costs_only_itself_the_fast_way() -> None:
    odd = [line(features=features(x=v)) for v in (True, [1], {"a": 1}, "7", math.inf)]
    odd += [line(features=features(new=1)), b"{", b'{"type": null}', line(environment=None), line() + b"null"]
    lines = [x for bad in odd for x in (line(), bad, line())]
    assert held_equal(lines, SPECS[0]) == 2 * len(odd)


def test_both_ways_together_hold_every_line() -> None:
    lines = [line(), line(features=features(new=1)), line()]
    clean = read(lines, SPECS[0])
    assert clean
    rest = [b"" if n in clean.row else raw for n, raw in enumerate(lines)]
    others = prediction_columns(decode(rest, ARRIVED).predictions["production", "m"], SPECS[0])
    assert by_row(together([clean, others])) == slowly(lines, SPECS[0])
