"""Windows: none skipped, none repeated, and counts that mix sampling weights are weighted."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from monitor.windows import Traffic, due

START = datetime(2026, 3, 1, 7, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


@given(st.lists(st.integers(0, 500), max_size=8), st.sampled_from([15, 60, 360]))
def test_windows_are_judged_once_each_however_often_one_looks(looks: list[int], minutes: int) -> None:
    length = timedelta(minutes=minutes)
    since, seen = START, []
    for minute in sorted(looks):
        for start, end in due(since, length, START + timedelta(minutes=minute)):
            seen.append((start, end))
            since = end
    last = START + timedelta(minutes=max(looks, default=0))
    assert seen == list(due(START, length, last))
    assert all(b[0] == a[1] for a, b in itertools.pairwise(seen))
    assert all(end - start == length and end <= last for start, end in seen)


def test_the_first_window_holds_the_first_event() -> None:
    assert next(iter(due(START, HOUR, START + HOUR))) == (START.replace(minute=0), START.replace(minute=0) + HOUR)


def traffic(rows: list[tuple[str, str, float, list[int]]]) -> Traffic:
    table = pl.DataFrame(
        {
            "version": [r[0] for r in rows],
            "server": [r[1] for r in rows],
            "segment": "",
            "role": "live",
            "weight": [r[2] for r in rows],
            "rows": [sum(r[3]) for r in rows],
            "failures": 0,
            "undeclared_keys": 0,
        }
    )
    return Traffic(table, np.array([r[3] for r in rows]))


def test_merging_is_adding() -> None:
    both = traffic([("1", "a", 1.0, [1, 2]), ("2", "b", 1.0, [10, 20])])
    assert both.counts().tolist() == [11, 22]
    assert both.counts(version="1").tolist() == [1, 2]
    assert both.counts(without=["server=a"]).tolist() == [10, 20]
    assert (both.rows(), both.requests()) == (33, 33.0)


def test_equal_weights_give_raw_counts() -> None:
    assert traffic([("1", "a", 10.0, [3, 4]), ("1", "b", 10.0, [1, 0])]).counts().tolist() == [4, 4]


def test_mixed_weights_give_weighted_shares_on_the_effective_number_of_rows() -> None:
    """The effective number of rows is Kish's: the squared sum of weights over the sum of squared weights."""
    mixed = traffic([("1", "a", 1.0, [100, 0]), ("1", "b", 10.0, [0, 90])])
    counts = mixed.counts()
    assert mixed.requests() == 1000.0
    np.testing.assert_allclose(counts / counts.sum(), [0.1, 0.9])
    np.testing.assert_allclose(counts.sum(), 1000**2 / (100 * 1 + 90 * 100))
