"""Pods keep exactly the rows that the store would."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from faulty import Telltale
from hypothesis import given
from hypothesis import strategies as st

from monitor import rows
from telltale_client import Logger, kept

FRACTIONS = (1e-6, 0.001, 0.01, 0.1, 1 / 3, 0.5, 0.999999, 1.0)


@given(st.text(st.characters()), st.floats(1e-6, 1))
def test_any_id_is_kept_where_the_server_keeps_it(prediction_id: str, fraction: float) -> None:
    assert kept(prediction_id, fraction) == rows.kept([prediction_id], fraction)[0]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_many_ids_are_kept_where_the_server_keeps_them(fraction: float) -> None:
    numbers = [str(n) for n in range(20_000)]
    random = [str(uuid.UUID(int=n * 0x9E3779B97F4A7C15 % 2**128)) for n in range(20_000)]
    ids = numbers + random
    assert [kept(i, fraction) for i in ids] == rows.kept(ids, fraction).tolist()


def test_of_ids_that_the_client_makes_the_share_is_kept() -> None:
    logger = Logger("m", "1", server="pod-1")
    ids = [logger.predict() for _ in range(50_000)]
    assert len(set(ids)) == len(ids)
    for fraction in (0.01, 0.1, 0.5):
        share = sum(kept(i, fraction) for i in ids) / len(ids)
        assert share == pytest.approx(fraction, rel=0.1)


def test_a_sampled_logger_ships_predictions_and_labels_of_the_same_ids(
    telltale: Telltale, make_logger: Callable[..., Logger]
) -> None:
    logger = make_logger(url=telltale.url, sampling=0.25)
    ids = [f"id-{n}" for n in range(400)]
    for each in ids:
        logger.predict({"x": 1.0}, "yes", prediction_id=each)
        logger.label(each, "no")
    assert logger.flush()
    wanted = [{"prediction_id": i} for i in sorted(ids) if rows.kept([i], 0.25)[0]]
    for table in ("predictions", "labels"):
        sql = f"SELECT DISTINCT prediction_id FROM {table} ORDER BY prediction_id"  # noqa: S608 - two fixed names
        assert telltale.select(sql) == wanted
    weights = telltale.select("SELECT DISTINCT weight FROM predictions")
    assert weights == [{"weight": 4.0}]
