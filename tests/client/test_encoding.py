"""Whatever a pod hands over becomes a line that the server accepts, with every value that can be told."""

from __future__ import annotations

import enum
import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from monitor.decode import decode, label_text
from telltale_client.encoding import encode, feature_values, id_text


class Colour(enum.Enum):
    RED = "red"


class Hostile:
    """A value that raises however it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


def event(**fields: Any) -> dict[str, Any]:
    who = {"type": "prediction", "model": "m", "version": "1", "server": "s", "prediction_id": "p", "timestamp": 1.0}
    return {**who, **fields}


def received(**fields: Any) -> dict[str, Any]:
    """What the server reads of an event."""
    decoded = decode([encode(event(**fields))], 1.0)
    assert decoded.rejects == []
    return decoded.predictions["production", "m"][0]


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
        (np.array(3.0), 3.0),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(90, "s"), "90 seconds"),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05+00:00"),
        (pd.Timedelta(seconds=90), 90.0),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=1.5), 1.5),
        (Decimal("1.25"), 1.25),
        (Fraction(1, 4), 0.25),
        (Colour.RED, "red"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        (b"bytes", "bytes"),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        (1 + 2j, "<complex>"),
        (object(), "<object>"),
        ("half \ud800 a pair", "half ? a pair"),
    ],
)
def test_a_value_becomes_what_it_means_and_its_neighbours_stay(value: object, meaning: object) -> None:
    features = received(features={"before": 1.5, "it": value, "after": "b"}, latency_ms=3.0)["features"]
    assert features == {"before": 1.5, "it": meaning, "after": "b"}


def test_a_value_that_raises_however_it_is_looked_at_costs_nothing_else() -> None:
    read = received(features={"it": Hostile(), "x": 1}, prediction=Hostile(), entity_id=Hostile())
    assert (read["features"], read["prediction"]) == ({"it": "<Hostile>", "x": 1}, "<Hostile>")


def test_what_is_not_finite_stays_so() -> None:
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32("nan"), "e": Decimal("NaN")}
    features = received(features=values)["features"]
    assert [str(v) for v in features.values()] == ["nan", "inf", "-inf", "nan", "nan"]


def test_names_that_are_no_texts_and_values_without_end_cost_nothing_else() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    features = received(features={np.int64(1): "one", "endless": endless, "x": 2.5}, segments={"plan": Hostile()})
    assert features["features"]["1"] == "one"
    assert features["features"]["x"] == 2.5
    assert features["segments"] == {"plan": "<Hostile>"}


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [(np.array([0.7]), 0.7), (np.array([["a"]]), "a"), (np.float32(0.5), 0.5), (np.array([1, 2]), [1, 2]), ([1], [1])],
)
def test_an_array_with_one_answer_is_that_answer(answer: object, meaning: object) -> None:
    assert received(prediction=answer)["prediction"] == meaning


class Point(NamedTuple):
    x: float


@dataclass
class Row:
    x: float


class Body(BaseModel):
    x: float


@pytest.mark.parametrize(
    "features",
    [{"x": 1.0}, Point(1.0), Row(1.0), Body(x=1.0), pd.Series({"x": 1.0}), pd.DataFrame({"x": [1.0]}).iloc[0]],
)
def test_features_may_come_in_whatever_has_names(features: object) -> None:
    assert json.loads(encode(feature_values(features))) == {"x": 1.0}


def test_features_without_names_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="of type list, which has no names; give a dict"):
        feature_values([1.0])


@pytest.mark.parametrize("value", [7, 7.0, 0.5, "a", np.float64(2.0), np.int64(3)])
def test_an_id_is_the_text_that_the_server_makes_of_it(value: Any) -> None:
    plain = value.item() if isinstance(value, np.generic) else value
    assert id_text(value) == label_text(plain)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(), max_size=5), ANYTHING, max_size=5), ANYTHING)
def test_any_values_make_one_line_that_is_accepted(features: dict[str, Any], answer: object) -> None:
    line = encode(event(features=features, prediction=answer))
    assert b"\n" not in line
    assert decode([line], 1.0).accepted == 1
