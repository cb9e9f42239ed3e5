"""Effect sizes against independent definitions."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats as st
from scipy.spatial.distance import jensenshannon

from detectors.effects import jensen_shannon, location_auc, psi, wasserstein_sd
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
