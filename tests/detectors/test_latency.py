"""Latency percentiles from logarithmic cells."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import scipy.stats as st

from detectors.finding import Status, Subject, Window
from detectors.latency import LEVELS, latency_finding, percentile, slower_than
from detectors.layout import Column, Counts, FeatureCells, Kind, Layout

CELLS = FeatureCells("latency", Kind.LATENCY)
WINDOW = Window("production", "fraud", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


def counts(milliseconds: list[float | None] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Counts:
    return Layout((CELLS,)).count({"latency": Column.of(pl.Series(milliseconds, dtype=pl.Float64))})


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0, 1e6])
def test_percentiles_are_within_two_percent(q: float, scale: float) -> None:
    rows = scale * np.random.default_rng(7).lognormal(0.5, 0.4, 5_000)
    exact = np.quantile(rows, q, method="inverted_cdf")
    assert percentile(counts(rows), q) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("milliseconds", [0.0100001, 0.0103999, 1.0, 17.3, 1.6e8])
def test_a_single_row_is_within_two_percent_wherever_it_falls_in_its_bin(milliseconds: float) -> None:
    assert percentile(counts([milliseconds]), 0.5) == pytest.approx(milliseconds, rel=0.02)


def test_rows_without_a_latency_are_left_out() -> None:
    with_gaps = counts([10.0, 10.0, 30.0, None, None, -5.0])
    assert percentile(with_gaps, 0.5) == pytest.approx(10.0, rel=0.02)
    finding = latency_finding(WINDOW, Subject(), CELLS, with_gaps, 1)
    assert finding.n == 3


def test_no_rows_have_no_percentile() -> None:
    assert percentile(counts([]), 0.95) is None
    finding = latency_finding(WINDOW, Subject(), CELLS, counts([]), 0)
    assert finding.status is Status.NOT_ENOUGH_DATA
    assert finding.value is None
    assert finding.effects == {}


def test_finding_shows_p95_and_its_neighbours() -> None:
    rows = np.arange(1.0, 1_001.0)
    finding = latency_finding(WINDOW, Subject(server="a"), CELLS, counts(rows), 200)
    assert finding.status is Status.MEASURED
    assert finding.value == finding.effects["p95"] == pytest.approx(950, rel=0.02)
    assert finding.effects["p50"] == pytest.approx(500, rel=0.02)
    assert finding.effects["p99"] == pytest.approx(990, rel=0.02)


def test_too_few_rows_are_shown_but_not_judged() -> None:
    finding = latency_finding(WINDOW, Subject(), CELLS, counts([5.0] * 199), 200)
    assert finding.status is Status.NOT_ENOUGH_DATA
    assert finding.value == pytest.approx(5.0, rel=0.02)
    assert finding.low is None
    assert "200" in finding.message


@pytest.mark.parametrize("n", [200, 1_000])
def test_interval_covers_the_true_percentile(n: int) -> None:
    rng = np.random.default_rng(9)
    truth, covered, repetitions = st.lognorm(1.0).ppf(0.95), 0, 1_000
    for _ in range(repetitions):
        finding = latency_finding(WINDOW, Subject(), CELLS, counts(rng.lognormal(0.0, 1.0, n)), 1)
        assert finding.low is not None
        assert finding.high is not None
        covered += finding.low * 0.98 <= truth <= finding.high * 1.02
    assert covered >= st.binom.ppf(0.001, repetitions, 0.95)


def test_an_end_that_no_row_can_give_is_not_known() -> None:
    """The largest of 50 rows stays below the 95th percentile with probability 0.95^50 = 7.7 %."""
    finding = latency_finding(WINDOW, Subject(), CELLS, counts(np.arange(1.0, 51.0)), 1)
    assert finding.low is not None
    assert finding.high is None


@pytest.mark.parametrize("n", [200, 1_000, 50_000])
@pytest.mark.parametrize("limit", [2.0, 4.9, 5.17, 5.6, 8.0, 50.0])
def test_the_p_value_of_a_limit_is_the_binomials_rounded_up(n: int, limit: float) -> None:
    """The true 95th percentile is 5.18."""
    rows = np.random.default_rng(n).lognormal(0.0, 1.0, n)
    edges = 0.01 * 1.04 ** np.arange(600)
    cells_upper_end = edges[np.searchsorted(edges, limit)]
    exact = st.binom.sf(np.count_nonzero(rows >= cells_upper_end) - 1, n, 0.05)
    expected = min((level for level in LEVELS if exact <= level), default=1.0)
    finding = latency_finding(WINDOW, Subject(), CELLS, counts(rows), 1)
    assert slower_than(finding.effects, limit) == expected


def test_a_few_rows_can_be_surely_slow_too() -> None:
    finding = latency_finding(WINDOW, Subject(), CELLS, counts([500.0] * 3), 1)
    assert slower_than(finding.effects, 400.0) == 1e-3, "0.05 ** 3 is 1.25e-4"
