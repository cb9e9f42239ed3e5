"""Accuracy of a version from its labels, and how much worse one version is than another.

Only rows with a label count. Where labels come earlier for some outcomes than for others (a fraud is reported, its
absence is not), both numbers are biased; the label coverage beside them says how much is still unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from detectors.finding import Finding, Status, Subject, Window
from detectors.intervals import wilson
from detectors.tails import hypergeometric_p

CLASSIFICATION = "classification"
LEAST_LABELS = 2
"""Below it a regression's loss has no variance."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Sums over the predictions of one side; adding two gives the sums of both.

    predictions, labelled
        Rows, and how many of them have a label.
    loss, loss_squares
        Sum of the loss and of its square over the labelled rows: 0 or 1 (wrong) for classification,
        the absolute error for regression.

    >>> (Outcomes(10, 4, 1.0, 1.0) + Outcomes(10, 6, 1.0, 1.0)).mean_loss
    0.2
    """

    predictions: int
    labelled: int
    loss: float
    loss_squares: float

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.predictions + other.predictions,
            self.labelled + other.labelled,
            self.loss + other.loss,
            self.loss_squares + other.loss_squares,
        )

    @property
    def mean_loss(self) -> float:
        """Loss per labelled row; NaN without labels."""
        return self.loss / self.labelled if self.labelled else math.nan

    @property
    def label_coverage(self) -> float:
        """Share of the predictions that have a label; 0 without predictions."""
        return self.labelled / self.predictions if self.predictions else 0.0

    @property
    def squared_error(self) -> float:
        """The squared standard error of the mean loss (divisor n - 1). Needs two labels."""
        spread = max(0.0, self.loss_squares - self.loss * self.mean_loss)
        return spread / (self.labelled - 1) / self.labelled


def accuracy_finding(window: Window, subject: Subject, outcomes: Outcomes, task: str, minimum_rows: int) -> Finding:
    """Detector ``accuracy``: how good the predictions were.

    ``value`` is the accuracy with its 95 % Wilson interval for the task ``classification``, and the mean absolute
    error with its 95 % t interval for ``regression``. ``effects`` has ``label_coverage``. ``n`` counts labels. It says
    nothing about predictions without a label, nor whether the number changed.
    """
    n = outcomes.labelled
    effects = {"label_coverage": outcomes.label_coverage}
    if n < max(minimum_rows, LEAST_LABELS):
        message = f"{n} of {outcomes.predictions} predictions have a label; {minimum_rows} are needed"
        return Finding(
            window, subject, "accuracy", status=Status.NOT_ENOUGH_DATA, n=n, effects=effects, message=message
        )
    if task == CLASSIFICATION:
        value = 1 - outcomes.mean_loss
        low, high = wilson(n - outcomes.loss, n)
    else:
        value = outcomes.mean_loss
        half = float(stdtrit(n - 1, 0.975)) * math.sqrt(outcomes.squared_error)
        low, high = value - half, value + half
    return Finding(window, subject, "accuracy", value=value, low=low, high=high, n=n, effects=effects)


def accuracy_drop_finding(
    window: Window,
    subject: Subject,
    baseline_version: str,
    outcomes: Outcomes,
    baseline_outcomes: Outcomes,
    task: str,
    minimum_rows: int,
) -> Finding:
    """Detector ``accuracy_drop``: how much worse the subject's predictions were than another version's.

    ``value`` is the subject's mean loss minus the baseline version's, so positive is worse, with its 95 % interval:
    Newcombe's hybrid score interval (1998, method 10) for ``classification``, Welch's for ``regression``. ``p_value``
    is two-sided: the exact mid-p of the wrong predictions for classification, Welch's test for regression.

    ``effects``: ``standard_error`` of the value (for classification after Agresti and Caffo 2000, so never 0), for each
    side ``accuracy`` and ``baseline_accuracy`` (for regression ``mean_absolute_error`` and
    ``baseline_mean_absolute_error``), ``label_coverage`` and ``baseline_label_coverage``.

    It compares the rows that each version got. Unless these were assigned at random, a version that got harder rows
    looks worse.
    """
    a, b = outcomes, baseline_outcomes
    baseline = f"version:{baseline_version}"
    effects = {"label_coverage": a.label_coverage, "baseline_label_coverage": b.label_coverage}
    if min(a.labelled, b.labelled) < max(minimum_rows, LEAST_LABELS):
        return Finding(
            window,
            subject,
            "accuracy_drop",
            baseline,
            Status.NOT_ENOUGH_DATA,
            n=a.labelled,
            n_baseline=b.labelled,
            effects=effects,
            message=f"{a.labelled} labels against {b.labelled}; {minimum_rows} are needed on each side",
        )
    if task == CLASSIFICATION:
        contrast = _newcombe(a, b)
        effects |= {"accuracy": 1 - a.mean_loss, "baseline_accuracy": 1 - b.mean_loss}
    else:
        contrast = _welch(a, b)
        effects |= {"mean_absolute_error": a.mean_loss, "baseline_mean_absolute_error": b.mean_loss}
    return Finding(
        window,
        subject,
        "accuracy_drop",
        baseline,
        value=a.mean_loss - b.mean_loss,
        low=contrast.low,
        high=contrast.high,
        p_value=contrast.p_value,
        n=a.labelled,
        n_baseline=b.labelled,
        effects=effects | {"standard_error": contrast.standard_error},
    )


def worse_by_more_than(finding_value: float, standard_error: float, margin: float) -> float:
    """One-sided p-value of "the loss increased by at most ``margin``", from a finding of ``accuracy_drop``.

    Normal tail, for the hundreds of labels that such a finding has. Looking at it again and again, as labels come in,
    finds a drop that is not there more often than the p-value says.

    >>> round(worse_by_more_than(0.05, 0.01, 0.02), 5)
    0.00135
    """
    if standard_error == 0:
        return 0.0 if finding_value > margin else 1.0
    return float(ndtr((margin - finding_value) / standard_error))


@dataclass(frozen=True, slots=True)
class _Contrast:
    low: float
    high: float
    p_value: float
    standard_error: float


def _newcombe(a: Outcomes, b: Outcomes) -> _Contrast:
    p, q = a.mean_loss, b.mean_loss
    (low_a, high_a), (low_b, high_b) = wilson(a.loss, a.labelled), wilson(b.loss, b.labelled)
    exact = hypergeometric_p(np.array([a.loss]), np.array([a.loss + b.loss]), a.labelled, b.labelled)
    return _Contrast(
        p - q - math.hypot(p - low_a, high_b - q),
        p - q + math.hypot(high_a - p, q - low_b),
        float(exact[0]),
        math.sqrt(_agresti_caffo(a) + _agresti_caffo(b)),
    )


def _agresti_caffo(side: Outcomes) -> float:
    share = (side.loss + 1) / (side.labelled + 2)
    return share * (1 - share) / (side.labelled + 2)


def _welch(a: Outcomes, b: Outcomes) -> _Contrast:
    difference = a.mean_loss - b.mean_loss
    squared = a.squared_error + b.squared_error
    if squared == 0:
        return _Contrast(difference, difference, float(difference == 0), 0.0)
    error = math.sqrt(squared)
    degrees = squared**2 / (a.squared_error**2 / (a.labelled - 1) + b.squared_error**2 / (b.labelled - 1))
    half = float(stdtrit(degrees, 0.975)) * error
    p_value = 2 * float(stdtr(degrees, -abs(difference) / error))
    return _Contrast(difference - half, difference + half, p_value, error)
