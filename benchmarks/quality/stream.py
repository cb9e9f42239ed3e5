"""False alarms and delays on streams with seasons and autocorrelation: drift against the same hours of the past.

Hours are drawn as counts, as the chance of each cell is known. Scores of many windows are computed at once; the first
line of the table says that they are those of ``detectors.scores`` and ``detectors.seasons``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr, ndtri

from benchmarks.quality.table import Line
from detectors.budget import Look, Share, split
from detectors.calibration import Past, calibrate
from detectors.finding import step
from detectors.gradual import evidence, persistence
from detectors.layout import FeatureCells, Kind
from detectors.scores import feature_scores
from detectors.seasons import BySlot, Calendar, expectation

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Hours = NDArray[np.int64]

CELLS = 32
EDGES = ndtri(np.arange(1, CELLS) / CELLS)
FEATURES = 10
ROWS_AN_HOUR = 300
COMPONENTS = ("location", "scale", "shape")
HISTORY, MONITORED, POOLED, KEPT = 28, 28, 28, 56
"""Days."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
STEPS = {length: step(length * HOUR) // HOUR for length in (1, 6, 24)}
"""Hours of a window, and from one to the next."""
SMALLEST = 5.0
ALMOST_ONE = 1 - 1e-12


def weekend(days: int) -> Flags:
    """Which days are, if the first is a Monday."""
    return np.asarray(np.arange(days) % 7 >= 5)


def means(rng: np.random.Generator, days: int, columns: int) -> Floats:
    """Per hour and column: a cycle of a day of 0.3 sd at any phase, 0.2 sd on weekends, and what wanders: 0.05 sd."""
    hours = np.arange(24 * days)
    cycle = 0.3 * np.sin(2 * np.pi * hours[:, None] / 24 + rng.uniform(0, 2 * np.pi, columns))
    return np.asarray(cycle + 0.2 * np.repeat(weekend(days), 24)[:, None] + wander(rng, len(hours), columns))


def wander(rng: np.random.Generator, hours: int, columns: int, rho: float = 0.8, sd: float = 0.05) -> Floats:
    """AR(1) from hour to hour."""
    steps = rng.normal(size=(hours, columns)) * sd * math.sqrt(1 - rho**2)
    steps[0] /= math.sqrt(1 - rho**2)
    for hour in range(1, hours):
        steps[hour] += rho * steps[hour - 1]
    return steps


def drawn(rng: np.random.Generator, mean: Floats, rows: int = ROWS_AN_HOUR) -> Floats:
    """Counts in cells with equal shares of a standard normal, of rows with these means."""
    below = ndtr(EDGES - mean[..., None])
    chances = np.diff(below, prepend=0.0, append=1.0, axis=-1)
    return rng.multinomial(rows, chances / chances.sum(axis=-1, keepdims=True)).astype(np.float64)


@dataclass(frozen=True)
class Scored:
    """The scores of windows of one length: windows x columns x components, and windows x columns."""

    length: int
    step: int
    z: Floats
    exposure: Floats


def against_the_past(counts: Floats, length: int, step: int, lag: int = 0) -> Scored:
    """Scores of all windows of up to a day against the same hours of 28 days that end ``lag`` days before.

    The counts are hours x columns x cells. A day's hour has the same past in any window that it is in, so the past is
    made once for each hour. NaN where a part of a window has no past.
    """
    hours, columns, cells = counts.shape
    days = hours // 24
    daily = counts.reshape(days, 24, columns, cells)
    kinds = weekend(days)
    first, last = (np.maximum(np.arange(days) - back, 0) for back in (lag + POOLED, lag))
    past, past_days = np.zeros_like(daily), np.zeros(days)
    for kind in (False, True):
        of_kind = np.where(kinds == kind, 1.0, 0.0)
        total = np.concatenate([np.zeros((1, *daily.shape[1:])), np.cumsum(daily * of_kind[:, None, None, None], 0)])
        number = np.concatenate([[0.0], np.cumsum(of_kind)])
        here = kinds == kind
        past[here] = (total[last] - total[first])[here]
        past_days[here] = (number[last] - number[first])[here]
    of_hour: Floats = past.reshape(counts.shape)
    n_hour, m_hour = counts.sum(axis=-1), of_hour.sum(axis=-1)
    known = m_hour > 0
    m_hour = np.where(known, m_hour, 1.0)
    by_hour = np.repeat(np.maximum(past_days, 1.0), 24)[:, None]
    c, n = _windows(counts, length, step), _windows(n_hour, length, step)
    shares = _windows(of_hour * (n_hour / m_hour)[..., None], length, step) / n[..., None]
    m = n**2 / _windows(n_hour**2 / m_hour, length, step)
    exposure = n * m / (n + m) * (1 + _windows(n_hour / by_hour, length, step) / n)
    whole = _windows(known.astype(np.float64), length, step) == length
    z = np.full((*n.shape, len(COMPONENTS)), np.nan)
    z[whole] = scored(c[whole], (shares * m[..., None])[whole])
    return Scored(length, step, z, np.where(whole, exposure, np.nan))


def _windows(hourly: Floats, length: int, step: int) -> Floats:
    total = np.concatenate([np.zeros((1, *hourly.shape[1:])), np.cumsum(hourly, axis=0)])
    return np.asarray((total[length:] - total[:-length])[::step])


def scored(c: Floats, r: Floats) -> Floats:
    """Location, scale and shape of rows of counts. Shape is what the chi-square has beside the other two."""
    n, m = c.sum(axis=1), r.sum(axis=1)
    pooled, difference = c + r, c / n[:, None] - r / m[:, None]
    w = pooled / (n + m)[:, None]
    u = np.cumsum(w, axis=1) - w / 2 - 0.5
    square = (w * u * u).sum(axis=1)[:, None]
    location = u / np.sqrt(square)
    residual = u * u - square - (w * (u * u - square) * location).sum(axis=1)[:, None] * location
    scale = residual / np.sqrt((w * residual**2).sum(axis=1))[:, None]
    rows = np.sqrt(n * m * (n + m - 1)) / (n + m)
    z = [(difference * score).sum(axis=1) * rows for score in (location, scale)]
    statistic, cells = _chi_square(c, pooled, n, m)
    beside = chdtrc(cells - 3, np.maximum(statistic - z[0] ** 2 - z[1] ** 2, 0.0))
    return np.stack([*z, -ndtri(np.clip(beside, 1e-300, ALMOST_ONE))], axis=1)


def _chi_square(c: Floats, pooled: Floats, n: Floats, m: Floats) -> tuple[Floats, Floats]:
    """The statistic and its cells, with small cells pooled."""
    smallest = SMALLEST * (n + m) / np.minimum(n, m)
    large = pooled >= smallest[:, None]
    rest_c, rest = np.where(large, 0.0, c).sum(axis=1), np.where(large, 0.0, pooled).sum(axis=1)
    own = rest >= smallest
    c, pooled = np.where(large, c, 0.0), np.where(large, pooled, 0.0)
    rows, least = np.arange(len(c)), np.where(large, pooled, np.inf).argmin(axis=1)
    c[rows, least] += np.where(own, 0.0, rest_c)
    pooled[rows, least] += np.where(own, 0.0, rest)
    c, pooled = np.column_stack([c, np.where(own, rest_c, 0.0)]), np.column_stack([pooled, np.where(own, rest, 0.0)])
    expected = pooled * (n / (n + m))[:, None]
    squares = (c - expected) ** 2 / np.where(expected > 0, expected, 1.0)
    return squares.sum(axis=1) * (n + m - 1) / m, (pooled > 0).sum(axis=1).astype(np.float64)


def judged(scores: Scored, first_day: int) -> tuple[Hours, Floats, Floats]:
    """Windows that begin at that day or later: their end in hours, p-value per column, calibrated z.

    The past of a window is that of the windows that begin at the same hour and end before its day, for 56 days.
    """
    windows, columns, components = scores.z.shape
    starts = np.arange(windows) * scores.step
    z = scores.z.reshape(windows, -1)
    exposure = np.repeat(scores.exposure, components, axis=1)
    one_sided = np.tile(np.array(COMPONENTS) == "shape", columns)
    location = np.arange(columns * components) // components * components
    location[::components] = -1
    ends, p_values, calibrated = [], [], []
    phase = starts % scores.length
    for day, begin in itertools.product(range(first_day, int(starts[-1]) // 24 + 1), np.unique(phase)):
        of_phase = phase == begin
        before = (starts + scores.length <= 24 * day) & (starts >= 24 * (day - KEPT)) & of_phase
        today = (starts // 24 == day) & of_phase
        past = Past(z[before], exposure[before], scores.length * HOUR, scores.length * HOUR, POOLED * DAY)
        now = calibrate(z[today], exposure[today], past, one_sided, lasting=False, location=location)
        ends.append(starts[today] + scores.length)
        untested = ~now.from_history | ~np.isfinite(z[today])
        p = np.where(untested, 1.0, now.p_value)
        p_values.append(combined(p.reshape(len(p), columns, components)))
        calibrated.append(np.where(untested, np.nan, now.z).reshape(len(p), columns, components))
    return np.concatenate(ends), np.concatenate(p_values), np.concatenate(calibrated)


def combined(p_values: Floats) -> Floats:
    """``detectors.multiplicity.cauchy_p`` over the last axis."""
    mean = (1 / np.tan(np.pi * np.clip(p_values, 1e-300, 0.99))).mean(axis=-1)
    return np.asarray(np.where(mean < 1, 0.5 - np.arctan(mean) / np.pi, np.arctan(1 / np.maximum(mean, 1.0)) / np.pi))


def lines() -> Iterator[Line]:
    """The scores, false alarms, delays and slow drift."""
    yield same_as_the_product()
    yield from false_alarms()
    yield from delays()
    yield from after_a_change()
    yield from days_that_differ()
    yield from slow_drift()


def same_as_the_product(windows: int = 60) -> Line:
    """Windows of all lengths through ``expectation`` and ``feature_scores``."""
    rng = np.random.default_rng(20)
    counts = drawn(rng, means(rng, 40, 1))
    starts = [MONDAY + hour * HOUR for hour in range(len(counts))]
    slots = Calendar().slots(starts)
    cells = FeatureCells("x", Kind.NUMERIC, edges=(-9.0, *EDGES.tolist(), 9.0))
    hourly = np.zeros((len(counts), cells.size))
    hourly[:, 1 : CELLS + 1] = counts[:, 0]
    largest = 0.0
    for length in STEPS:
        scores = against_the_past(counts, length, 1)
        for start in rng.integers(7 * 24, len(counts) - length, windows // 3).tolist():
            past = slice(max(start - 24 * POOLED, 0), start)
            of = BySlot.of(hourly[start : start + length], slots[start : start + length])
            found = expectation(of, BySlot.of(hourly[past], slots[past]))
            product = {s.component: s.z for s in feature_scores(cells, found.baseline, found.current)}
            ours = dict(zip(COMPONENTS, scores.z[start, 0].tolist(), strict=True))
            gaps = [abs(product[name] - ours[name]) for name in COMPONENTS]
            largest = max(largest, *gaps, abs(found.exposure / float(scores.exposure[start, 0]) - 1))
    return Line(
        "scores of the streams: largest difference from the product's", "<= 0.1", f"{largest:.3f}", largest <= 0.1
    )


def shares(steps: dict[int, int], *also: Look, detector: str = "drift") -> dict[int, Share]:
    """The budget of one false alarm a week, for these windows and what else is looked at; by length."""
    looks = [Look(detector, length * HOUR, step * HOUR) for length, step in steps.items()]
    return dict(zip([*steps, 0], split(1.0, [*looks, *also]), strict=False))


GRADUAL = Look("gradual_drift", DAY, DAY)


def false_alarms(streams: int = 24, at_once: int = 6) -> Iterator[Line]:
    """Seasons and autocorrelation, and no drift: all features, window lengths and slow drift together."""
    told: list[tuple[list[float], float, float]] = []
    budget = shares(STEPS, GRADUAL)
    for group in range(streams // at_once):
        rng = np.random.default_rng([21, group])
        counts = drawn(rng, means(rng, HISTORY + MONITORED, FEATURES * at_once))
        scores = {length: against_the_past(counts, length, every) for length, every in STEPS.items()}
        alarms = {length: _alarms(of, budget[length].alpha) for length, of in scores.items()}
        days = np.asarray(_slow(scores[24]) >= math.log(FEATURES / budget[0].alpha))
        alarms[0] = (24 * np.arange(1, len(days) + 1), days)
        for stream in range(at_once):
            own = slice(stream * FEATURES, (stream + 1) * FEATURES)
            here = {length: (ends, hit[:, own]) for length, (ends, hit) in alarms.items()}
            windows = [float(np.asarray(hit.any(axis=1))[ends > 24 * HISTORY].sum()) for ends, hit in here.values()]
            told.append((windows, _incidents(here), MONITORED / 7))
    weeks = sum(w for *_, w in told)
    per_week = np.array([incidents / w for _, incidents, w in told])
    false = np.array([w for w, *_ in told]).sum(axis=0) / weeks
    low, high = interval(per_week)
    each = " + ".join(f"{w:.2f}" for w in false)
    yield Line(
        "season + AR(1), no drift, windows of 1, 6, 24 h: incidents a week",
        "<= 2 (budget 1)",
        f"{per_week.mean():.2f} ({low:.2f} to {high:.2f}); false windows {false.sum():.2f}"
        f" (1 h, 6 h, 24 h, slow: {each})",
        bool(per_week.mean() <= 2),
    )


def _thinned(scores: Scored, step: int) -> Scored:
    every = step // scores.step
    return Scored(scores.length, step, scores.z[::every], scores.exposure[::every])


def _alarms(scores: Scored, alpha: float, family: int = FEATURES) -> tuple[Hours, Flags]:
    """Ends of the monitored windows, and which columns alarm: Holm's first step, as nothing else is drifted."""
    ends, p_values, _ = judged(scores, HISTORY)
    return ends, np.asarray(p_values <= alpha / family)


def _slow(daily: Scored) -> Floats:
    """Logarithm of the evidence per day and column, of location and scale together; days before the first are 0."""
    first = 16
    _, _, z = judged(_thinned(daily, 24), first)
    return np.concatenate([np.zeros((first, z.shape[1])), slow_evidence(z[:, :, :2])])


def slow_evidence(z: Floats) -> Floats:
    """What each day and the days before it that are kept say of each column: days x columns x scores."""
    found = []
    for day in range(len(z)):
        of_days = z[max(0, day - KEPT) : day + 1]
        of_scores = [evidence(score / persistence(score)).log_e[-1] for score in np.moveaxis(of_days, 2, 0)]
        found.append(np.logaddexp.reduce(of_scores) - math.log(len(of_scores)))
    return np.array(found)


def _incidents(alarms: dict[int, tuple[Hours, Flags]]) -> float:
    """Alarms of one feature, whatever the window: a new one begins after two clean lengths of the window before it."""
    incidents = 0
    for feature in range(FEATURES):
        hits = sorted(
            (int(end), length or 24) for length, (ends, hit) in alarms.items() for end in ends[hit[:, feature]]
        )
        open_until = 0
        for end, length in hits:
            incidents += end > 24 * HISTORY and end > open_until
            open_until = max(open_until, end + 2 * length)
    return float(incidents)


def interval(values: Floats) -> tuple[float, float]:
    """95 %, from how much streams differ."""
    error = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return max(0.0, float(values.mean()) - error), float(values.mean()) + error


def delays(streams: int = 160) -> Iterator[Line]:
    """A shift of one of 10 features, at any hour of the first monitored week."""
    days = HISTORY + 21
    for shift, wanted in ((0.2, 7.0), (0.5, 1.0)):
        rng = np.random.default_rng(22)
        at = 24 * HISTORY + rng.integers(0, 7 * 24, streams)
        mean = means(rng, days, streams)
        mean[np.arange(len(mean))[:, None] >= at] += shift
        counts = drawn(rng, mean)
        budget = shares(STEPS, GRADUAL)
        first = np.full(streams, np.inf)
        for length, every in STEPS.items():
            ends, hit = _alarms(against_the_past(counts, length, every), budget[length].alpha)
            after = np.where(hit & (ends[:, None] > at), ends[:, None] - at, np.inf)
            first = np.minimum(first, after.min(axis=0))
        median = float(np.median(first))
        yield Line(
            f"season + AR(1), one of 10 features +{shift} sd: median delay",
            f"<= {wanted:.0f} h",
            f"{median:.0f} h (a quarter later than {np.quantile(first, 0.75):.0f} h)",
            median <= wanted,
        )


def after_a_change(streams: int = 60) -> Iterator[Line]:
    """A shift of 0.5 sd that stays: when its alarms end, what comes afterwards, and when a second shift is found."""
    first, second, days = HISTORY, HISTORY + 5 * 7, HISTORY + 7 * 7
    rng = np.random.default_rng(25)
    mean = means(rng, days, streams)
    for day in (first, second):
        mean[24 * day :] += 0.5
    counts = drawn(rng, mean)
    budget = shares(STEPS, GRADUAL)
    hits = {
        length: _alarms(against_the_past(counts, length, every), budget[length].alpha)
        for length, every in STEPS.items()
    }
    ends = np.concatenate([of for of, _ in hits.values()])
    hit = np.concatenate([of for _, of in hits.values()])
    last = np.where(hit & (ends <= 24 * second)[:, None], ends[:, None], 0).max(axis=0) / 24 - first
    late = np.where(hit & (ends > 24 * second)[:, None], ends[:, None] - 24 * second, np.inf).min(axis=0)
    yield Line(
        "+0.5 sd that stays: its last alarm", "<= 28 days", f"{np.median(last):.0f} days", bool(np.median(last) <= 28)
    )
    yield Line(
        "another +0.5 sd five weeks later: median delay",
        "",
        f"{np.median(late):.0f} h; found {100 * np.isfinite(late).mean():.0f} %",
    )


def days_that_differ(columns: int = 60) -> Iterator[Line]:
    """Days whose means differ by so much, and no drift: how often a daily window is below 0.001, against that."""
    days, first, nominal = 84, 36, 0.001
    for sd in (0.05, 0.15, 0.3):
        rng = np.random.default_rng(5)
        mean = means(rng, days, columns) + np.repeat(rng.normal(0, sd, (days, columns)), 24, axis=0)
        _, p_values, _ = judged(against_the_past(drawn(rng, mean), 24, 24), first)
        times = float((p_values <= nominal).mean()) / nominal
        yield Line(f"days that differ by {sd} sd, no drift: p below {nominal}, times as often", "", f"{times:.1f}")


def slow_drift(columns: int = 60) -> Iterator[Line]:
    """Daily windows against the 28 days before them, for a mean that moves by so much a day."""
    before, days = 60, 160
    rng = np.random.default_rng(23)
    base = means(rng, days, columns)
    threshold = FEATURES / shares(STEPS, GRADUAL)[0].alpha
    grown = np.maximum(np.arange(24 * days) / 24 - before, 0.0)[:, None]
    for slope in (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02):
        scores = against_the_past(drawn(rng, base + slope * grown), 24, 24)
        alarms = _slow(scores) >= math.log(threshold)
        if not slope:
            new = alarms[1:] & ~alarms[:-1]
            a_week = FEATURES * float(new[HISTORY:].mean()) * 7
            wanted = FEATURES * 7 / threshold
            yield Line(
                "slow drift, none: alarms a week of 10 features", f"<= {wanted:.2f}", f"{a_week:.3f}", a_week <= wanted
            )
            continue
        late = alarms[before:]
        first = np.where(late.any(axis=0), late.argmax(axis=0) + 1.0, np.inf)
        yield Line(
            f"slow drift, {slope} sd a day: median delay",
            "",
            f"{np.median(first):.0f} days, then {slope * np.median(first):.3f} sd; "
            f"found {100 * late.any(axis=0).mean():.0f} %",
        )


SERVERS = 6


def fleet(rng: np.random.Generator, days: int, features: int, shift: float) -> Floats:
    """Hours x servers x features x cells; all features of the first server shift after the history."""
    hours = np.arange(24 * days)[:, None]
    regions = []
    for region in range(3):
        cycle = 0.3 * np.sin(2 * np.pi * (hours / 24 + region / 3)) + rng.normal(0, 0.5, features)
        regions.append(cycle + wander(rng, len(hours), features))
    shifted = regions[0] + shift * (hours >= 24 * HISTORY)
    return np.stack([drawn(rng, regions[server % 3] if server else shifted) for server in range(SERVERS)], axis=1)
