"""Models over time: odd names, a configuration that changes, and views for people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, ndjson, prediction

from monitor.config import ConfigError
from monitor.reference import TableError
from monitor.registry import Model, view_name
from monitor.service import Service

DAY = timedelta(days=1)


def exported(service: Service, model: str = "m", environment: str = "production") -> list[dict[str, Any]]:
    return pl.read_parquet(service.export(model, NOON - DAY, NOON + DAY, environment)).to_dicts()


@pytest.mark.parametrize(
    "name",
    [
        "weight",
        "timestamp",
        "version",
        "label",
        "score",
        "num",
        "schema_id",
        "@prediction",
        "@score",
        "a`b\\c'd",
        "",
        "é 1",
    ],
)
def test_a_feature_may_be_called_anything(name: str, make_service: ServiceMaker) -> None:
    service = make_service()
    body = ndjson([prediction(1, NOON, features={name: 5.0, "level": "a"}, prediction="yes", version="v7")])
    assert service.take(body, "http").accepted == 1
    row = exported(service)[0]
    assert (row["version"], row["@prediction"], row["weight"], row["level"]) == ("v7", "yes", 1.0, "a")
    kept = service.store.select("SELECT extra_names, extra_values FROM features").to_dicts()[0]
    if name.startswith("@"):  # the mark of outputs: kept beside the row, like what nobody declared
        assert (kept["extra_names"], kept["extra_values"]) == ([name], ["5.0"])
    else:
        assert row.get(f"{name} (feature)", row.get(name)) == 5.0


@pytest.mark.parametrize("name", ["m" * 300, "ж" * 200, "a/b c", "model"])
def test_a_model_may_be_called_anything(name: str, make_service: ServiceMaker) -> None:
    service = make_service()
    assert service.take(ndjson([prediction(1, NOON, model=name)]), "http").accepted == 1
    assert len(exported(service, name)) == 1


def test_two_models_never_share_a_view() -> None:
    from monitor.config import ModelSpec

    names = [("production", "staging_m"), ("staging", "m"), ("production", "staging.m"), ("production", "staging-m")]
    assert len({view_name(Model(e, n, ModelSpec())) for e, n in names}) == len(names)


def test_features_may_be_added_to_the_configuration(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric"}}})
    service.take(ndjson([prediction(i, NOON, features={"x": 1.0}) for i in range(250)]), "http")
    again = make_service(models={"m": {"features": {"z": "numeric", "x": "numeric", "c": "categorical"}}})
    later = [prediction(1000 + i, NOON, features={"x": 2.0, "z": 3.0, "c": "a"}) for i in range(50)]
    again.take(ndjson(later), "http")
    assert {(r["x"], r["z"] == 3.0, r["c"]) for r in exported(again)} == {(1.0, False, None), (2.0, True, "a")}
    again.evaluate("m", NOON)
    assert again.registry.get("production", "m").layout is not None


def test_a_kind_cannot_change_under_the_same_name(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric"}}})
    service.register_reference("m", pl.DataFrame({"x": [float(i) for i in range(500)]}), "t.csv")
    with pytest.raises(
        ConfigError, match=r"models\.m\.features\.x: is categorical .* counted so; give it another name"
    ):
        make_service(models={"m": {"features": {"x": "categorical"}}})


def test_a_reference_must_have_the_declared_features(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric", "z": "numeric"}}})
    with pytest.raises(TableError, match="lacks z; a reference of 'm' needs x, z"):
        service.register_reference("m", pl.DataFrame({"x": [1.0] * 300}), "t.csv")


def test_private_values_do_not_reach_the_layout(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k")
    spec = {
        "features": {"x": "numeric", "c": "categorical"},
        "privacy": {"drop": ["email"], "hash": ["c"], "hash_key_env": "KEY"},
    }
    service = make_service(models={"m": spec})
    table = pl.DataFrame({"x": [1.0, 2.0] * 300, "c": ["alice", "bob"] * 300, "email": ["a@x"] * 600})
    model = service.register_reference("m", table, "t.csv")
    layout = service.registry.get("production", "m").layout
    assert model["features"] == ["x", "c"]
    assert layout is not None
    assert "alice" not in layout.to_json()
    service.take(
        ndjson(
            [
                prediction(i, NOON - DAY / 48, features={"x": 1.0 + i % 2, "c": ["alice", "bob"][i % 2]})
                for i in range(400)
            ]
        ),
        "http",
    )
    drift = {
        f["feature"]: f["p_value"]
        for f in service.evaluate("m", NOON)["findings"]
        if f["detector"] == "drift" and "feature" in f
    }
    assert drift["c"] > 0.01


def test_a_boolean_prediction_is_the_same_in_reference_and_traffic(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"windows": ["1h"]}})
    table = pl.DataFrame({"x": [float(i % 7) for i in range(700)], "prediction": [True, False] * 350})
    service.register_reference("m", table, "t.parquet")
    service.take(
        ndjson(
            [prediction(i, NOON - DAY / 48, features={"x": float(i % 7)}, prediction=i % 2 == 0) for i in range(700)]
        ),
        "http",
    )
    drift = {f["feature"]: f["p_value"] for f in service.evaluate("m", NOON)["findings"] if f["detector"] == "drift"}
    assert drift["@prediction"] > 0.01
