"""Windows: none skipped, none repeated, and counts that mix sampling weights are weighted."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from detectors.finding import step
from monitor.windows import Traffic, due, next_start

START = datetime(2026, 3, 1, 7, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


@given(st.lists(st.integers(0, 2000), max_size=8), st.sampled_from([15, 60, 360, 1440]))
def test_windows_are_judged_once_each_however_often_one_looks(looks: list[int], minutes: int) -> None:
    length = timedelta(minutes=minutes)
    last_end, seen = None, []
    for minute in sorted(looks):
        for start, end in due(next_start(length, last_end, START), length, START + timedelta(minutes=minute)):
            seen.append((start, end))
            last_end = end
    last = START + timedelta(minutes=max(looks, default=0))
    assert seen == list(due(next_start(length, None, START), length, last))
    assert all(b[0] == a[0] + step(length) for a, b in itertools.pairwise(seen))
    assert all(end - start == length and end <= last for start, end in seen)


def test_the_first_window_holds_the_first_event() -> None:
    for length in (HOUR, 6 * HOUR, 24 * HOUR):
        start, end = next(iter(due(next_start(length, None, START), length, START + 24 * HOUR)))
        assert start <= START < end
        assert START - start < step(length)


@given(st.integers(1, 40 * 24 * 60))
def test_windows_overlap_by_two_thirds_at_most_and_leave_nothing_out(minutes: int) -> None:
    length = timedelta(minutes=minutes)
    every = step(length)
    assert length % every == timedelta(0)  # so some of them lie side by side
    assert every == length or (length <= 3 * every and every % HOUR == timedelta(0))


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
