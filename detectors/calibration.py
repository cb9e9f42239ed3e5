"""What a score usually is where nothing happened, learned from the scores of earlier windows.

Rows of one window resemble each other, days differ, a region is never like the rest: so a score that would be sure
for independent rows comes up every day. Each window is scored once, against what was its past then; its scores are
kept, and say how large the next one may be.
Source: over-dispersion as in Laney's p' charts (2002), the prediction interval of a random-effects model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

from detectors.scores import Score

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

LEAST_WINDOWS = 8
"""Windows that do not overlap, of which a usual score can be told."""
LEAST_SPAN = timedelta(days=7)
"""So many windows of a single day would not know the other days."""
LEAST_FITTED = 20
"""Windows of which it can be told what a change of location does to the other scores."""
SURPRISE = 3.0
"""Usual deviations to which a past score is cut: one that was drifted counts, but no more than that."""
MEDIAN_SQUARE = 0.4549364
"""The median of the square of a standard normal score."""
TINY = 1e-300
ALMOST_ONE = 1 - 1e-12
ALMOST_NONE = 1e-9
ONE_SIDED = frozenset({"shape"})
BESIDE_LOCATION = frozenset({"scale", "shape"})
"""Scores that a change of location touches, too."""
SHARES = frozenset({"missing", "unusable", "unseen"})


def kept(length: timedelta) -> timedelta:
    """How far back the scores of windows of this length are of use: 56 days, or 26 windows where that is longer.

    >>> kept(timedelta(weeks=1)).days
    182
    """
    return max(timedelta(days=56), 26 * length)


class Mode(StrEnum):
    """What a p-value rests on."""

    INDEPENDENT_ROWS = "independent rows"
    HISTORY = "history"


@dataclass(frozen=True)
class Past:
    """The scores of earlier windows of the same length, baseline and subjects, none of which overlaps the one judged.

    z
        A row for each window, a column for each score; NaN where a window did not have that score.
    exposure
        ``Expectation.exposure`` of each; for a contrast, where both sides are of the same time, ``nm / (n + m)``.
        Of the same shape, or with one column for all scores.
    length, step
        Of the windows, and from the start of one to that of the next. Those that overlap tell less.
    trails
        Each window was held against so much of what was just before it; None if against anything else. The rows are
        then those of all windows from the first to the last, also of any that was not scored.
    """

    z: Floats
    exposure: Floats
    length: timedelta
    step: timedelta
    trails: timedelta | None = None

    @property
    def independent(self) -> Floats:
        """For each score, how many windows side by side would tell its variance as well.

        Windows that overlap by so much have squares that go together: the sum over all pairs gives this number.
        """
        each = max(1.0, self.length / self.step)
        return np.asarray(np.isfinite(self.z).sum(axis=0) * 3 * each / (2 * each**2 + 1), dtype=np.float64)

    @property
    def enough(self) -> Flags:
        """For each score, whether it can be told what is usual."""
        span = np.isfinite(self.z).sum(axis=0) * self.step.total_seconds()
        return np.asarray((self.independent >= LEAST_WINDOWS) & (span >= LEAST_SPAN.total_seconds()), dtype=np.bool_)


@dataclass(frozen=True)
class Calibrated:
    """Scores as their past makes them; arrays with a place for each.

    p_value, z
        Of "this window is like the earlier ones". ``z`` is the p-value as a normal score with the sign of the change.
    usual, spread
        What the score was expected to be, and by how much it usually misses: 0 and 1 for independent rows.
    from_history
        False where the past was too short, and rows were taken as independent.
    """

    p_value: Floats
    z: Floats
    usual: Floats
    spread: Floats
    from_history: Flags


def calibrate(
    z: Floats, exposure: Floats, past: Past, one_sided: Flags, *, lasting: bool, location: Indices | None = None
) -> Calibrated:
    """Holds the scores of a window against what they were before.

    The variance of a score is ``1 + g * exposure``: what rows differ by, and what windows differ by. ``g`` and the
    spread are estimated from past scores that are cut at three usual deviations, so a few drifted windows hardly
    count, and a change that stays becomes usual as soon as it is most of the past. The spread is never below that of
    independent rows. The tail is Student's t with as many windows as do not overlap, less one.

    It does not tell a change from a trend or a season that the past did not show, and windows that depend on each
    other over longer than their length tell less than is assumed.

    one_sided
        Which scores only count upwards (``shape``).
    lasting
        Whether there may be a difference for ever, as between a server and its fleet: it is then what is usual. A
        trailing past of the same subject has none; what such scores had in common would be a change in the past.
    location
        For each score, where that of the same feature's location is among them, if its changes touch it; else -1.
        Days whose location differs by three usual deviations move scale and shape by the square of that, which no
        multiple of their usual spread allows for: so what they usually are at such a location is taken off first.
    """
    if not len(past.z):
        return _independent(z, one_sided)
    count = np.isfinite(past.z).sum(axis=0)
    past_exposure = np.broadcast_to(past.exposure, past.z.shape)
    scores = past.z - _of_a_change_that_stayed(past, np.sqrt(past_exposure))
    usual, of_past = np.zeros_like(z), np.zeros_like(past.z)
    if lasting:
        grows = [np.where(one_sided, e, np.sqrt(e)) for e in (exposure, past_exposure)]
        level = _typical(scores, past_exposure, grows[1])
        usual, of_past = level * grows[0], level * grows[1]
    rest, unsure, noisier = scores - of_past, np.zeros_like(z), np.ones_like(z)
    if location is not None:
        touched, unsure, of_rest = _by_location(z - usual, rest, exposure, past_exposure, one_sided, location)
        # A chi-square that is expected to be larger spreads more, too.
        noisier, of_noisier = (1 + np.where(one_sided, np.maximum(x, 0.0), 0.0) for x in (touched, of_rest))
        usual, rest = usual + touched, (rest - of_rest) / np.sqrt(of_noisier)
    between, squares = _spread(rest, past_exposure)
    free = np.maximum(past.independent - 1, 1.0)
    lost = past.independent / free * (1 + 1 / np.maximum(past.independent, 1.0)) if lasting else 1.0
    wide = squares * (lost + unsure) * noisier * (1 + between * exposure)
    enough = past.enough & (count > 0)
    spread = np.sqrt(np.maximum(wide, 1.0))
    t = (z - usual) / spread
    p = np.where(one_sided, stdtr(free, -t), 2 * stdtr(free, -np.abs(t)))
    rows = _independent(z, one_sided)
    return Calibrated(
        np.where(enough, np.maximum(p, TINY), rows.p_value),
        np.where(enough, _normal(p, t, one_sided), rows.z),
        np.where(enough, usual, 0.0),
        np.where(enough, spread, 1.0),
        enough,
    )


@dataclass(frozen=True)
class Usual:
    """What the scores of one subject were in earlier windows.

    columns
        Of ``past``, by feature and component.
    lasting
        See ``calibrate``.
    """

    columns: Mapping[tuple[str, str], int]
    past: Past
    lasting: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there were enough windows to tell what is usual."""
        return bool(self.past.enough.any())

    def calibrated(
        self, names: Sequence[str], exposures: Sequence[float], found: Sequence[Sequence[Score]]
    ) -> tuple[list[list[Score]], list[frozenset[str]]]:
        """The scores of some features with calibrated ``z`` and ``p_value``, and by feature which of them are.

        ``effect`` stays what was measured. A score that no earlier window had, such as a first missing value, is judged
        as for independent rows; a share of rows, once the past is known, only upwards: after a day of missing values,
        which is a part of the past, their absence is no change.
        """
        flat = [(i, score) for i, scores in enumerate(found) for score in scores]
        columns = np.array([self.columns.get((names[i], s.component), -1) for i, s in flat], dtype=np.int64)
        if not (columns >= 0).any():
            return [list(scores) for scores in found], [frozenset()] * len(found)
        of_past = np.where(columns >= 0, self.past.z[:, columns], np.nan)
        past = replace(self.past, z=of_past, exposure=self.past.exposure[:, columns])
        one_sided = np.array([s.component in ONE_SIDED for _, s in flat])
        exposure = np.array([exposures[i] for i, _ in flat])
        at = {i: place for place, (i, s) in enumerate(flat) if s.component == "location"}
        location = np.array([at.get(i, -1) if s.component in BESIDE_LOCATION else -1 for i, s in flat])
        z = np.array([s.z for _, s in flat])
        now = calibrate(z, exposure, past, one_sided, lasting=self.lasting, location=location)
        scores: list[list[Score]] = [[] for _ in found]
        of_history: list[set[str]] = [set() for _ in found]
        told = zip(flat, now.p_value.tolist(), now.z.tolist(), now.from_history.tolist(), strict=True)
        for (i, score), p_value, z, known in told:
            if known:
                of_history[i].add(score.component)
                scores[i].append(replace(score, p_value=p_value, z=z))
            else:
                gone = self.is_known and score.component in SHARES and score.z < 0
                scores[i].append(replace(score, p_value=1.0, z=0.0) if gone else score)
        return scores, [frozenset(components) for components in of_history]


def _independent(z: Floats, one_sided: Flags) -> Calibrated:
    p = np.where(one_sided, ndtr(-z), 2 * ndtr(-np.abs(z)))
    return Calibrated(np.maximum(p, TINY), z, np.zeros_like(z), np.ones_like(z), np.zeros(z.shape, dtype=bool))


def _normal(p: Floats, t: Floats, one_sided: Flags) -> Floats:
    """The normal score that has this p-value."""
    p = np.clip(np.where(one_sided, p, p / 2), TINY, ALMOST_ONE)
    return np.asarray(np.where(one_sided, -ndtri(p), np.copysign(ndtri(p), t)), dtype=np.float64)


def _spread(deviations: Floats, exposure: Floats) -> tuple[Floats, Floats]:
    """``g``, from the median; and by what its variance is still off, from the mean of the squares, each cut."""
    squares = deviations**2
    usual = _median(np.where(np.isfinite(deviations), exposure, np.nan))
    between = np.maximum(_median(squares) / MEDIAN_SQUARE - 1, 0.0) / np.where(usual > 0, usual, np.inf)
    relative = np.minimum(squares / (1 + between * exposure), SURPRISE**2)
    known = np.isfinite(relative)
    return between, np.where(known, relative, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _by_location(
    z: Floats, past: Floats, exposure: Floats, past_exposure: Floats, one_sided: Flags, location: Indices
) -> tuple[Floats, Floats, Floats]:
    """What the location of the window usually does to each score, how unsure that is, and the same for the past.

    Least squares with two terms. To the first order it is odd for scale, and even for shape, which has no sign; to the
    second it is its square. Past windows of which the location is a surprise are left out. How unsure it is counts in
    variances of the score, so a location that is further off than any before explains little.
    """
    touched, unsure, of_past = np.zeros_like(z), np.zeros_like(z), np.zeros_like(past)
    own = np.flatnonzero(location >= 0)
    moved, moved_now = past[:, location[own]], z[..., location[own]]
    size = np.where(one_sided[own], 1.0, np.sqrt(past_exposure[:, own]))
    size_now = np.where(one_sided[own], 1.0, np.sqrt(np.broadcast_to(exposure, z.shape)[..., own]))
    usual = np.maximum(_median(moved**2) / MEDIAN_SQUARE, 1.0)
    fit = np.isfinite(moved) & np.isfinite(past[:, own]) & (moved**2 <= SURPRISE**2 * usual)
    terms = np.stack([np.where(one_sided[own], np.abs(moved), moved), (moved**2 - 1) / size])
    terms = np.where(np.isfinite(terms), terms, 0.0)
    a, b, y = terms[0] * fit, terms[1] * fit, np.where(fit, past[:, own], 0.0)
    aa, ab, bb, ay, by = (np.sum(u * v, axis=0) for u, v in ((a, a), (a, b), (b, b), (a, y), (b, y)))
    determinant = aa * bb - ab**2
    known = (fit.sum(axis=0) >= LEAST_FITTED) & (determinant > ALMOST_NONE * aa * bb)
    safe = np.where(known, determinant, 1.0)
    first, second = (np.where(known, x / safe, 0.0) for x in (bb * ay - ab * by, aa * by - ab * ay))
    of_past[:, own] = first * terms[0] + second * terms[1]
    now = np.where(one_sided[own], np.abs(moved_now), moved_now), (moved_now**2 - 1) / size_now
    judged = known & np.isfinite(moved_now)
    touched[..., own] = np.where(judged, first * now[0] + second * now[1], 0.0)
    leverage = (bb * now[0] ** 2 - 2 * ab * now[0] * now[1] + aa * now[1] ** 2) / safe
    unsure[..., own] = np.where(judged, leverage, 0.0)
    return touched, unsure, of_past


def _of_a_change_that_stayed(past: Past, grows: Floats) -> Floats:
    """What one change that stayed put into the past scores, while it became a part of what they were held against.

    Such weeks are no habit: were they taken for usual, the next change of that size would be, too. Right after the
    change all of it shows in a score, then less from window to window, as far as the reference is still of before. It
    is looked for at every day, and taken off where it says as much of the scores as everything else together; and only
    when the reference has become wholly of after it, so that a change that goes on is not forgiven itself.

    Scores that wander look like it, too, and are usual: so the past must be longer than what a window is held against,
    and what is left must differ as much from one day to the next as it is large. Both are told by medians and cut
    scores, as neither one broken day nor the next change is to hide that there was one.
    """
    found = np.zeros_like(past.z)
    a_day = max(round(timedelta(days=1) / past.step), 1)
    if past.trails is None or len(past.z) <= max(past.trails / past.step, a_day):
        return found
    starts = np.arange(len(past.z)) * (past.step / past.trails)
    every = a_day * (past.step / past.trails)
    changes = np.arange(every - 1, len(past.z) * (past.step / past.trails) - 1 + ALMOST_NONE, every)
    since = starts - changes[:, None]
    shares = np.where(since > -ALMOST_NONE, np.clip(1 - since, 0.0, 1.0), 0.0)
    known = np.isfinite(past.z)
    cut = SURPRISE * np.sqrt(np.maximum(_median(past.z**2) / MEDIAN_SQUARE, 1.0))
    z, grown = np.where(known, np.clip(past.z, -cut, cut), 0.0), np.where(known, grows, 0.0)
    along, own = shares @ (z * grown), shares**2 @ grown**2
    explained = np.where(own > 0, along**2 / np.where(own > 0, own, 1.0), 0.0)
    best, columns = explained.argmax(axis=0), np.arange(z.shape[1])
    much = explained[best, columns] > (z**2).sum(axis=0) / 2
    size = np.where(much, along[best, columns] / np.where(much, own[best, columns], 1.0), 0.0)
    found = shares[best].T * grown * size
    rest = past.z - found
    wanders = _median((rest[a_day:] - rest[:-a_day]) ** 2) < _median(rest**2)
    return np.asarray(np.where(wanders, 0.0, found), dtype=np.float64)


def _typical(z: Floats, exposure: Floats, grows: Floats) -> Floats:
    """The constant whose product with ``grows`` is the usual score: the median, then the mean of what is cut."""
    middle = _median(z / np.where(grows > 0, grows, np.nan))
    rest = z - middle * grows
    between, squares = _spread(rest, exposure)
    variance = np.maximum(squares, 1.0) * (1 + between * exposure)
    cut = np.clip(rest, -SURPRISE * np.sqrt(variance), SURPRISE * np.sqrt(variance))
    known = np.isfinite(cut)
    weights = np.where(known, grows / variance, 0.0)
    above = (weights * np.where(known, cut, 0.0)).sum(axis=0)
    return np.asarray(middle + above / np.maximum((weights * grows).sum(axis=0, where=known), TINY), dtype=np.float64)


def _median(values: Floats) -> Floats:
    """Of each column, without NaN; 0 where there is nothing else. Quicker than NumPy's for many short columns."""
    ordered = np.sort(values, axis=0)
    count = np.isfinite(values).sum(axis=0)
    columns = np.arange(values.shape[1])
    low = ordered[np.maximum(count - 1, 0) // 2, columns]
    high = ordered[np.minimum(count // 2, len(values) - 1), columns]
    return np.where(count > 0, (low + high) / 2, 0.0)
