"""Accuracy and its drop: published intervals, symmetry, and what happens without enough labels."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as some

from detectors.accuracy import Outcomes, accuracy_drop_finding, accuracy_finding, worse_by_more_than
from detectors.finding import Finding, Status, Subject, Window

WINDOW = Window("production", "fraud", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
SUBJECT = Subject(version="2")


def wrong(losses: int, labels: int, predictions: int | None = None) -> Outcomes:
    return Outcomes(predictions or labels, labels, losses, losses)


def drop(a: Outcomes, b: Outcomes, task: str = "classification", minimum_rows: int = 1) -> Finding:
    return accuracy_drop_finding(WINDOW, SUBJECT, "1", a, b, task, minimum_rows)


def test_outcomes_add_up_like_their_rows() -> None:
    rng = np.random.default_rng(3)
    errors = rng.exponential(size=50)
    parts = [Outcomes(len(e) + 5, len(e), float(e.sum()), float((e**2).sum())) for e in (errors[:20], errors[20:])]
    both = parts[0] + parts[1]
    assert (both.predictions, both.labelled) == (60, 50)
    assert both.mean_loss == pytest.approx(errors.mean())
    assert both.squared_error == pytest.approx(errors.var(ddof=1) / 50)
    assert both.label_coverage == pytest.approx(50 / 60)


def test_accuracy_of_a_classifier_has_its_wilson_interval() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, method 3: 81 of 263."""
    finding = accuracy_finding(WINDOW, SUBJECT, wrong(263 - 81, 263, 526), "classification", 200)
    assert finding.value == pytest.approx(81 / 263)
    assert (finding.low, finding.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert finding.effects == {"label_coverage": 0.5}
    assert finding.n == 263


def test_mean_absolute_error_has_its_t_interval() -> None:
    errors = np.random.default_rng(4).exponential(2.0, 30)
    outcomes = Outcomes(30, 30, float(errors.sum()), float((errors**2).sum()))
    finding = accuracy_finding(WINDOW, SUBJECT, outcomes, "regression", 10)
    low, high = st.t.interval(0.95, 29, errors.mean(), st.sem(errors))
    assert (finding.value, finding.low, finding.high) == pytest.approx((errors.mean(), low, high))


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_drop_of_a_classifier_has_newcombes_interval(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II, method 10."""
    finding = drop(wrong(*a), wrong(*b))
    assert finding.value == pytest.approx(a[0] / a[1] - b[0] / b[1])
    assert (finding.low, finding.high) == pytest.approx((low, high), abs=6e-5)


def test_drop_of_a_regression_is_welchs_test() -> None:
    """The absolute Welch row of gbstats' tests."""
    a, b = Outcomes(3461, 3461, 2422.7, 134698.29), Outcomes(3407, 3407, 1396.87, 52377.9767)
    finding = drop(a, b, "regression")
    assert finding.value == pytest.approx(0.29, abs=5e-6)
    assert (finding.low, finding.high) == pytest.approx((0.04538, 0.53462), abs=5e-6)
    assert finding.p_value == pytest.approx(0.02016, abs=5e-6)
    assert finding.effects["mean_absolute_error"] == pytest.approx(0.7)
    assert finding.effects["baseline_mean_absolute_error"] == pytest.approx(0.41)


def test_drop_of_a_classifier_has_the_exact_mid_p_of_its_wrong_rows() -> None:
    finding = drop(wrong(60, 400), wrong(30, 500))
    hits = st.hypergeom(900, 90, 400)
    less_likely = sum(hits.pmf(x) for x in range(40) if hits.pmf(x) < hits.pmf(60))
    assert finding.p_value == pytest.approx(hits.sf(60) + hits.pmf(60) / 2 + less_likely, rel=1e-9)


def test_drop_names_both_sides() -> None:
    finding = drop(wrong(60, 400, 800), wrong(25, 500))
    assert finding.detector == "accuracy_drop"
    assert finding.baseline == "version:1"
    assert (finding.n, finding.n_baseline) == (400, 500)
    assert finding.effects["accuracy"] == pytest.approx(0.85)
    assert finding.effects["baseline_accuracy"] == pytest.approx(0.95)
    assert finding.effects["label_coverage"] == 0.5
    assert finding.effects["baseline_label_coverage"] == 1.0


sides = some.integers(2, 5_000).flatmap(lambda n: some.builds(wrong, some.integers(0, n), some.just(n)))


@given(sides, sides, some.sampled_from(["classification", "regression"]))
def test_swapping_the_versions_negates_the_drop_and_its_interval(a: Outcomes, b: Outcomes, task: str) -> None:
    there, back = drop(a, b, task), drop(b, a, task)
    assert there.value is not None
    assert there.low is not None
    assert there.high is not None
    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
    assert back.p_value == pytest.approx(there.p_value, rel=1e-6)
    assert there.low <= there.value <= there.high
    assert there.effects["standard_error"] == pytest.approx(back.effects["standard_error"])


def test_rare_errors_still_have_a_standard_error() -> None:
    """Agresti and Caffo 2000: one right and one wrong row more on each side."""
    share_a, share_b = 1 / 302, 4 / 252
    expected = math.sqrt(share_a * (1 - share_a) / 302 + share_b * (1 - share_b) / 252)
    assert drop(wrong(0, 300), wrong(3, 250)).effects["standard_error"] == pytest.approx(expected)


def test_a_regression_without_spread_is_decided_by_its_value() -> None:
    exact = Outcomes(300, 300, 0.0, 0.0)
    off_by_one = Outcomes(300, 300, 300.0, 300.0)
    assert drop(exact, exact, "regression").p_value == 1.0
    assert drop(off_by_one, exact, "regression").p_value == 0.0


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("labels", [0, 1, 199])
def test_too_few_labels_give_no_number(labels: int, task: str) -> None:
    few, many = Outcomes(1_000, labels, 0.0, 0.0), wrong(50, 500)
    for finding in (
        accuracy_finding(WINDOW, SUBJECT, few, task, 200),
        drop(few, many, task, 200),
        drop(many, few, task, 200),
    ):
        assert finding.status is Status.NOT_ENOUGH_DATA
        assert finding.value is None
        assert finding.p_value is None
        assert "200" in finding.message
        assert finding.effects["label_coverage"] in (labels / 1_000, 1.0)


def test_worse_by_more_than_a_margin_is_the_normal_tail_beyond_it() -> None:
    assert worse_by_more_than(0.05, 0.01, 0.02) == pytest.approx(st.norm.sf(3))
    assert worse_by_more_than(-0.05, 0.01, 0.02) == pytest.approx(st.norm.sf(-7))
    assert worse_by_more_than(0.02, 0.01, 0.02) == pytest.approx(0.5)
    assert worse_by_more_than(0.03, 0.0, 0.02) == 0.0
    assert worse_by_more_than(0.02, 0.0, 0.02) == 1.0


def test_false_drops_stay_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(8)
    losses = rng.binomial([600, 300], 0.04, size=(4_000, 2))
    found = [drop(wrong(int(a), 600), wrong(int(b), 300)) for a, b in losses]
    by_p = sum(f.p_value is not None and f.p_value <= 0.05 for f in found)
    by_margin = sum(worse_by_more_than(f.value or 0.0, f.effects["standard_error"], 0.0) <= 0.05 for f in found)
    covered = sum((f.low or 0.0) <= 0 <= (f.high or 0.0) for f in found)
    most = st.binom.ppf(0.999, 4_000, 0.05)
    assert by_p <= most
    assert by_margin <= most
    assert 4_000 - covered <= most
