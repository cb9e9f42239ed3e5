"""Effect sizes against independent definitions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats as st
from scipy.spatial.distance import jensenshannon

from detectors.effects import (
    chi_square,
    g_statistic,
    hellinger,
    jensen_shannon,
    kolmogorov_smirnov,
    location_auc,
    named_statistics,
    psi,
    total_variation,
    wasserstein_sd,
)
from detectors.layout import FeatureCells, Kind

Floats = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture
def sides() -> tuple[Floats, Floats]:
    rng = np.random.default_rng(5)
    return rng.poisson(40, 34).astype(float), rng.poisson(np.linspace(5, 60, 34)).astype(float)


def test_jensen_shannon_is_scipys_distance_to_base_two(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    current[[3, 30]] = 0
    expected = jensenshannon(baseline / baseline.sum(), current / current.sum(), base=2)
    assert jensen_shannon(baseline, current) == pytest.approx(expected, rel=1e-12)


def test_psi_adds_half_a_row_to_each_cell_in_use() -> None:
    baseline, current = [90.0, 10.0, 0.0, 0.0], [50.0, 0.0, 50.0, 0.0]
    p = [(x + 0.5) / 101.5 for x in current[:3]]
    q = [(x + 0.5) / 101.5 for x in baseline[:3]]
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi(np.array(baseline), np.array(current)) == pytest.approx(expected, rel=1e-12)


def test_psi_of_an_empty_cell_stays_modest() -> None:
    full, without = np.full(10, 100.0), np.array([0.0, *[1000 / 9] * 9])
    assert 0.2 < psi(full, without) < 1.0


def test_hellinger_is_that_of_the_affinity(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    affinity = float(np.sqrt(baseline / baseline.sum() * current / current.sum()).sum())
    assert hellinger(baseline, current) == pytest.approx(math.sqrt(1 - affinity), rel=1e-9)


def test_chi_square_and_g_are_scipys_of_the_table_without_its_empty_cells(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    baseline[[4, 9]] = current[[9, 20]] = 0
    table = np.array([baseline, current])[:, baseline + current > 0]
    assert chi_square(baseline, current) == pytest.approx(st.chi2_contingency(table).statistic, rel=1e-12)
    likelihood = st.chi2_contingency(table, lambda_="log-likelihood").statistic
    assert g_statistic(baseline, current) == pytest.approx(likelihood, rel=1e-12)


def test_kolmogorov_smirnov_is_that_of_rows_where_cells_are_values(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    rows = [np.repeat(np.arange(34), side.astype(int)) for side in (baseline, current)]
    assert kolmogorov_smirnov(baseline, current) == pytest.approx(st.ks_2samp(*rows).statistic, abs=1e-12)


def test_total_variation_is_the_share_that_moved() -> None:
    assert total_variation(np.array([50.0, 30.0, 20.0]), np.array([50.0, 10.0, 40.0])) == pytest.approx(0.2)


@pytest.mark.parametrize("statistic", [hellinger, total_variation, kolmogorov_smirnov, jensen_shannon])
def test_distances_are_symmetric_and_between_zero_and_one(
    statistic: Callable[[Floats, Floats], float], sides: tuple[Floats, Floats]
) -> None:
    baseline, current = sides
    assert statistic(baseline, current) == pytest.approx(statistic(current, baseline))
    assert statistic(baseline, 3 * baseline) == pytest.approx(0, abs=1e-7)
    assert statistic(np.array([7.0, 0.0]), np.array([0.0, 2.0])) == 1


@pytest.mark.parametrize("statistic", [chi_square, g_statistic])
def test_test_statistics_of_chance_are_about_the_cells_less_one(statistic: Callable[[Floats, Floats], float]) -> None:
    rng = np.random.default_rng(2)
    shares = np.full(20, 0.05)
    found = [
        statistic(rng.multinomial(4_000, shares).astype(float), rng.multinomial(900, shares).astype(float))
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(19, abs=1.2)


def test_the_eight_by_name_are_the_same_numbers_as_one_by_one() -> None:
    cells = FeatureCells("x", Kind.NUMERIC, points=(1.0, 2.0, 3.0))
    baseline, current = np.array([0.0, 9, 9, 9, 0, 0, 3, 0, 0]), np.array([0.0, 4, 9, 12, 1, 0, 4, 0, 0])
    named = named_statistics(cells, baseline, current)
    assert len(named) == 8
    assert named["kolmogorov_smirnov"] == kolmogorov_smirnov(baseline[:5], current[:5])
    assert named["chi_square"] == chi_square(baseline, current)
    words = FeatureCells("x", Kind.CATEGORICAL, levels=("a", "b"))
    assert not {"kolmogorov_smirnov", "wasserstein_sd"} & set(named_statistics(words, np.ones(6), np.ones(6)))


def test_location_is_the_auc_minus_a_half(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    rows = [np.repeat(np.arange(34), side.astype(int)) for side in (current, baseline)]
    auc = st.mannwhitneyu(*rows).statistic / (len(rows[0]) * len(rows[1]))
    assert location_auc(baseline, current) == pytest.approx(auc - 0.5, abs=1e-12)


def test_wasserstein_is_scipys_distance_over_the_baseline_sd(sides: tuple[Floats, Floats]) -> None:
    baseline, current = sides
    cells = FeatureCells("x", Kind.NUMERIC, edges=tuple(1e6 + np.cumsum(np.linspace(0.1, 3, 33))))
    at = cells.representatives
    mean = np.average(at, weights=baseline)
    sd = math.sqrt(np.average((at - mean) ** 2, weights=baseline))
    expected = st.wasserstein_distance(at, at, baseline, current) / sd
    assert wasserstein_sd(cells, baseline, current) == pytest.approx(expected, rel=1e-6)


def test_wasserstein_is_left_out_without_a_standard_deviation() -> None:
    constant = FeatureCells("x", Kind.NUMERIC, points=(3.7,))
    assert wasserstein_sd(constant, np.array([0.0, 10.0, 0.0]), np.array([1.0, 9.0, 0.0])) is None
    zero = FeatureCells("x", Kind.NUMERIC, points=(0.0,))
    assert wasserstein_sd(zero, np.array([0.0, 10.0, 0.0]), np.array([1.0, 9.0, 0.0])) is None
    words = FeatureCells("x", Kind.CATEGORICAL, levels=("a", "b"))
    assert wasserstein_sd(words, np.ones(6), np.ones(6)) is None


def test_wasserstein_survives_the_largest_numbers() -> None:
    huge = FeatureCells("x", Kind.NUMERIC, points=(-1.7e308, 0.0, 1.7e308))
    distance = wasserstein_sd(huge, np.array([0.0, 5.0, 5.0, 5.0, 0.0]), np.array([0.0, 0.0, 5.0, 5.0, 0.0]))
    assert distance == pytest.approx(0.5 / math.sqrt(2 / 3))
