"""Odd values leave a hole, are counted as what they are, and never cost the row."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from detectors.layout import FeatureCells, Kind, Layout
from monitor.columns import prediction_columns
from monitor.config import ModelSpec
from monitor.profile import profile_rows
from monitor.registry import Model

SPEC = ModelSpec.model_validate(
    {"features": {"x": "numeric", "c": "categorical"}, "segments": {"plan": ["vip", "free"]}}
)
LAYOUT = Layout(
    (
        FeatureCells("x", Kind.NUMERIC, points=(1.0, 2.0)),
        FeatureCells("c", Kind.CATEGORICAL, levels=("a", "b")),
        FeatureCells("@latency", Kind.LATENCY),
    )
)
MODEL = Model("production", "m", SPEC, LAYOUT)


def event(x: object = 1, c: object = "a", **more: object) -> dict[str, object]:
    base: dict[str, object] = {"version": "1", "server": "s", "at": 60.0, "features": {"x": x, "c": c}}
    return {**base, **more}


def cell_counts(events: list[dict[str, object]], name: str) -> dict[str, int]:
    columns = prediction_columns(events, SPEC)
    counts = LAYOUT.count(columns.features)[LAYOUT.spans[name]]
    return {label: int(n) for label, n in zip(LAYOUT.by_name[name].labels, counts, strict=True) if n}


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (1, "1"),
        (2.0, "2"),
        (1.5, "between"),
        (0, "below 1"),
        (3, "above 2"),
        (None, "missing"),
        (float("nan"), "not_finite"),
        (float("inf"), "not_finite"),
        ("NaN", "not_finite"),
        ("-Infinity", "not_finite"),
        pytest.param(10**400, "not_finite", id="too large"),
        ("1", "wrong_kind"),
        (True, "wrong_kind"),
        ([1], "wrong_kind"),
    ],
)
def test_each_numeric_value_has_its_cell(value: object, cell: str) -> None:
    assert cell_counts([event(x=value), event(x=1)], "x") == ({"1": 2} if cell == "1" else {"1": 1, cell: 1})


@pytest.mark.parametrize(
    ("value", "cell"), [("a", "a"), ("zzz", "new_level"), (None, "missing"), ([], "wrong_kind"), ({}, "wrong_kind")]
)
def test_each_categorical_value_has_its_cell(value: object, cell: str) -> None:
    assert cell_counts([event(c=value), event(c="b")], "c") == {"b": 1, cell: 1}


def test_an_absent_key_is_missing() -> None:
    assert cell_counts([{**event(), "features": {}}], "x") == {"missing": 1}


def test_undeclared_and_unfit_values_are_kept_beside_the_row() -> None:
    odd = {**event(), "features": {"x": "seven", "c": "a", "new": [1, 2]}}
    swapped = {**event(), "features": {"x": 1, "other": 2}}
    columns = prediction_columns([event(), odd, swapped], SPEC)
    assert columns.extras == [None, {"x": '"seven"', "new": "[1,2]"}, {"other": "2"}]
    assert columns.undeclared.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("spec", "prediction", "score", "label"),
    [
        ({}, "yes", math.nan, "yes"),
        ({}, 1, math.nan, "1"),
        ({}, True, math.nan, "1"),
        ({}, {"score": 0.7, "label": 1}, 0.7, "1"),
        ({}, {"score": {"a": 0.2, "b": 0.8}}, 0.8, "b"),
        ({"positive_label": "a"}, {"score": {"a": 0.2, "b": 0.8}}, 0.2, "b"),
        ({"threshold": 0.5}, 0.7, 0.7, "1"),
        ({"threshold": 0.5}, {"score": 0.3}, 0.3, "0"),
        ({}, None, math.nan, None),
        ({"task": "regression"}, 12, 12.0, None),
        ({"task": "regression"}, {"score": 3.5}, 3.5, None),
        ({"task": "regression"}, "many", math.nan, None),
    ],
)
def test_answers_of_all_forms(spec: dict[str, object], prediction: object, score: float, label: str | None) -> None:
    columns = prediction_columns([event(prediction=prediction)], ModelSpec.model_validate(spec))
    np.testing.assert_equal(columns.score.tolist(), [score])
    assert columns.label.to_list() == [label]


def test_private_fields_never_reach_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", "k")
    spec = ModelSpec.model_validate(
        {
            "features": {"x": "numeric", "c": "categorical"},
            "privacy": {"drop": ["email"], "hash": ["c", "entity_id"], "hash_key_env": "HASH_KEY"},
        }
    )
    private = {**event(c="Alice", entity_id="Alice"), "features": {"x": 1, "c": "Alice", "email": "a@b"}}
    columns = prediction_columns([private], spec)
    assert "Alice" not in json.dumps(
        [*(t.to_list() for t in columns.texts.values()), columns.features["c"].values.to_list()]
    )
    assert "a@b" not in str(columns)


def test_profile_of_a_concatenation_is_the_sum_of_the_profiles() -> None:
    rng = np.random.default_rng(5)
    events = [
        event(
            x=rng.choice([1, 2, 3, None]),  # type: ignore[arg-type]  # of objects as well
            c=str(rng.choice(["a", "b", "q"])),
            version=str(rng.integers(2)),
            at=float(rng.integers(300)),
            latency_ms=float(rng.lognormal()),
            segments={"plan": str(rng.choice(["vip", "gold"]))},
            sampling_fraction=float(rng.choice([1.0, 0.5])),
        )
        for _ in range(500)
    ]
    for e in events:
        assert isinstance(e["features"], dict)
        x = e["features"]["x"]
        e["features"]["x"] = None if x is None else int(x)
    whole = totals(profile_rows([(MODEL, prediction_columns(events, SPEC))]))
    halves = [profile_rows([(MODEL, prediction_columns(part, SPEC))]) for part in (events[:200], events[200:])]
    assert totals(pl.concat(halves)) == whole
    assert {key[3] for key in whole} == {"", "plan=vip", "plan=other"}


def totals(profiles: pl.DataFrame) -> dict[tuple[object, ...], int]:
    found: dict[tuple[object, ...], int] = {}
    for row in profiles.iter_rows(named=True):
        place = tuple(row[n] for n in ("version", "server", "role", "segment", "minute", "weight"))
        for cell, count in [("n", row["n"]), *zip(row["cells"], row["counts"], strict=True)]:
            found[*place, cell] = found.get((*place, cell), 0) + count
    return found


def test_every_event_lands_in_exactly_one_cell_of_each_feature() -> None:
    odd: list[object] = ["a", "new", None, []]
    events = [event(x=v, c=c) for v in (1, 9, None, "q", math.inf) for c in odd]
    profiles = profile_rows([(MODEL, prediction_columns(events, SPEC))])
    assert profiles["n"].sum() == 20
    for span in LAYOUT.spans.values():
        inside = [
            n
            for row in profiles.iter_rows(named=True)
            for c, n in zip(row["cells"], row["counts"], strict=True)
            if c in range(span.start, span.stop)
        ]
        assert sum(inside) == 20
