"""Whole tables, as scoring jobs send them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from faulty import Gateway, Telltale

from telltale_client import tables
from telltale_client.batches import RefusedError, UnavailableError
from telltale_client.over_http import HttpTransport
from telltale_client.tables import log_table

AT = 1_772_366_400.0
FRAME = pd.DataFrame({"income": np.linspace(0, 1, 50), "region": ["north", "south"] * 25})


def sent(to: str, features: Any = FRAME, **more: Any) -> Any:
    given: dict[str, Any] = {
        "prediction": ["yes", "no"] * 25,
        "model": "loans",
        "version": "2",
        "prediction_id": [f"a{n}" for n in range(50)],
        "timestamp": AT,
        "server": "job",
        "transport": HttpTransport(to),
        **more,
    }
    return log_table(features, given.pop("prediction"), **given)


@pytest.mark.parametrize("of", [lambda f: f, pl.from_pandas, pa.Table.from_pandas], ids=["pandas", "polars", "pyarrow"])
def test_every_row_is_a_prediction(telltale: Telltale, of: Any) -> None:
    receipt = sent(telltale.url, of(FRAME), score=np.full(50, 0.25))
    assert (receipt.accepted, receipt.rejected) == (50, 0)
    row = telltale.select(
        "SELECT model, version, server, prediction_id, label, score, toUnixTimestamp(timestamp) AS at "
        "FROM predictions FINAL WHERE prediction_id = 'a1'"
    )[0]
    assert list(row.values()) == ["loans", "2", "job", "a1", "no", 0.25, AT]


def test_a_job_that_is_run_again_changes_nothing(telltale: Telltale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 20)
    for _ in range(2):
        assert sent(telltale.url).accepted == 50
    assert telltale.rows() == 50
    assert telltale.rows("batches") == 3


def test_rows_that_are_refused_are_counted_with_a_reason(telltale: Telltale) -> None:
    ids = ["", *(f"a{n}" for n in range(49))]
    receipt = sent(telltale.url, prediction_id=ids)
    assert (receipt.accepted, receipt.rejected, receipt.reason) == (49, 1, "missing_key: prediction_id is empty")


def test_what_fails_for_a_while_is_sent_again_and_counts_once(telltale: Telltale, gateway: Gateway) -> None:
    gateway.faults.extend([503, "cut"])
    assert sent(gateway.url).accepted == 50
    assert telltale.rows() == 50


def test_what_is_too_large_is_sent_in_halves(telltale: Telltale, gateway: Gateway) -> None:
    gateway.faults.extend([413])
    assert sent(gateway.url).accepted == 50
    assert telltale.rows("batches") == 2


def test_what_nobody_takes_raises(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELLTALE_URL", raising=False)
    gateway.faults.extend([503, 401])
    with pytest.raises(UnavailableError, match="503"):
        sent(gateway.url, timeout=0.0)
    with pytest.raises(UnavailableError, match="401"):
        sent(gateway.url)
    assert len(gateway.keys) == 2  # a wrong key is not tried for a minute
    gateway.faults.append(400)
    with pytest.raises(RefusedError, match="400"):
        sent(gateway.url)
    with pytest.raises(ValueError, match="neither transport nor TELLTALE_URL"):
        sent(gateway.url, transport=None)
