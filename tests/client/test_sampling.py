"""Pods keep exactly the rows that the store would."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest
from faulty import Telltale
from given import NOON, ServiceMaker, ndjson, prediction
from hypothesis import given
from hypothesis import strategies as st

from monitor import rows
from telltale_client import Logger, kept

MINUTE = timedelta(minutes=1)
FRACTIONS = (1e-6, 0.001, 0.01, 0.1, 1 / 3, 0.5, 0.999999, 1.0)


@given(st.text(), st.floats(1e-6, 1))
def test_any_id_is_kept_where_the_server_keeps_it(prediction_id: str, fraction: float) -> None:
    assert kept(prediction_id, fraction) == rows.kept(pl.Series([prediction_id]), fraction)[0]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_many_ids_are_kept_where_the_server_keeps_them(fraction: float) -> None:
    numbers = [str(n) for n in range(20_000)]
    random = [str(uuid.UUID(int=n * 0x9E3779B97F4A7C15 % 2**128)) for n in range(20_000)]
    ids = numbers + random
    assert [kept(i, fraction) for i in ids] == rows.kept(pl.Series(ids), fraction).tolist()


def test_of_ids_that_the_client_makes_the_share_is_kept() -> None:
    logger = Logger("m", "1", server="pod-1")
    ids = [logger.predict() for _ in range(50_000)]
    assert len(set(ids)) == len(ids)
    for fraction in (0.01, 0.1, 0.5):
        share = sum(kept(i, fraction) for i in ids) / len(ids)
        assert abs(share - fraction) < 5 * math.sqrt(fraction * (1 - fraction) / len(ids))


def test_a_sampled_logger_ships_predictions_and_labels_of_the_same_ids(
    telltale: Telltale, make_logger: Callable[..., Logger]
) -> None:
    logger = make_logger(url=telltale.url, sampling=0.25)
    ids = [f"id-{n}" for n in range(400)]
    for each in ids:
        logger.predict({"x": 1.0}, "yes", prediction_id=each)
        logger.label(each, "no")
    assert logger.flush()
    wanted = [{"prediction_id": i} for i in sorted(ids) if rows.kept(pl.Series([i]), 0.25)[0]]
    for table in ("predictions", "labels"):
        sql = f"SELECT DISTINCT prediction_id FROM {table} ORDER BY prediction_id"  # noqa: S608 - two fixed names
        assert telltale.select(sql) == wanted
    weights = telltale.select("SELECT DISTINCT weight FROM predictions")
    assert weights == [{"weight": 4.0}]


SHARES = [(0.1, 0.5), (0.5, 0.1), (1.0, 0.2), (0.3, 0.3)]


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize(("pod", "store"), SHARES)
def test_samples_of_pod_and_store_together_stand_for_all_requests(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch, pod: float, store: float, *, hashes: bool
) -> None:
    monkeypatch.setenv("HASH_KEY", "k" * 32)
    privacy = {"privacy": {"hash": ["prediction_id"], "hash_key_env": "HASH_KEY"}} if hashes else {}
    spec = {"features": {"x": "numeric"}, "sampling": {"predictions": store, "features": store}, **privacy}
    service = make_service(models={"m": spec})
    service.register_reference("m", pl.DataFrame({"x": [float(n % 7) for n in range(100)]}), "first")
    fraction = {"sampling_fraction": pod} if pod < 1 else {}
    shipped = [prediction(n, NOON - MINUTE, **fraction) for n in range(20_000) if kept(f"p{n}", pod)]
    service.take(ndjson(shipped), "http")
    asked = service.store.select(
        "SELECT sum(n * weight) AS n FROM profile_batches FINAL WHERE segment = '' AND model = 'm'"
    )["n"][0]
    assert asked == pytest.approx(20_000, rel=0.05)
    for table in ("predictions", "features"):
        sql = f"SELECT count() AS n, sum(weight) AS requests, uniqExact(weight) AS weights FROM {table} FINAL"  # noqa: S608 - two fixed names
        rows = service.store.select(sql).to_dicts()[0]
        share = pod * store if hashes else min(pod, store)
        assert rows["n"] == pytest.approx(20_000 * share, rel=0.1)
        assert rows["requests"] == pytest.approx(asked, rel=0.1)
        assert rows["weights"] == 1


def test_what_a_pod_ships_less_of_than_the_store_keeps_is_kept_whole(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric"}, "sampling": {"predictions": 0.5}}})
    ids = [n for n in range(2000) if kept(f"p{n}", 0.1)]
    service.take(ndjson([prediction(n, NOON - MINUTE, sampling_fraction=0.1) for n in ids]), "http")
    rows = service.store.select("SELECT count() AS n, sum(weight) AS requests FROM predictions FINAL").to_dicts()
    assert rows == [{"n": len(ids), "requests": 10.0 * len(ids)}]


def test_fractions_that_hardly_differ_share_a_profile_and_its_weight(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric"}}})
    events = [prediction(n, NOON - MINUTE, server="s", sampling_fraction=0.5 + n / 1e5) for n in range(1000)]
    service.take(ndjson(events), "http")
    weights = "SELECT weight, {} AS n FROM {} FINAL WHERE model = 'm' GROUP BY weight ORDER BY weight"
    profiles = service.store.select(weights.format("sum(n)", "profile_batches")).to_dicts()
    assert 2 <= len(profiles) <= 6
    assert profiles == service.store.select(weights.format("count()", "predictions")).to_dicts()
    requests = sum(1 / e["sampling_fraction"] for e in events)
    assert sum(p["weight"] * p["n"] for p in profiles) == pytest.approx(requests, rel=0.005)
