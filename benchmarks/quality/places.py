"""Whether the place and the feature of a planted fault are named, and no others: traffic to verdicts, by the real code.

A window has 50 features, 20 servers whose shares are Zipf's, two or three versions on servers of their own, and a key
of three or four segments that differ for ever. Only rows are drawn here, as counts over the layout's cells.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binom

from alerts.policy import ModelRules, Policy, Verdict, judge_window
from benchmarks.quality.table import Line
from detectors.finding import Finding, Window
from detectors.layout import FeatureCells, Kind, Layout, numeric_cells
from monitor.config import ModelSpec
from monitor.measure import Measure
from monitor.registry import Model, Reference
from monitor.windows import Traffic

SEEDS = 200
ROWS, REFERENCE_ROWS, FITTED_ROWS = 50_000, 100_000, 10_000
SERVERS, FEATURES, CATEGORICAL = 20, 50, 10
SHIFT = 0.3
HOUR = timedelta(hours=1)
START = datetime(2026, 3, 2, tzinfo=UTC)
WINDOW = Window("production", "m", START, START + HOUR)
POLICIES = (Policy("d", "drift"), Policy("s", "server_outlier"), Policy("v", "version_contrast"))
BUDGET = 1.0
LARGE_BUDGET = 0.05 * 7 * 24
"""At which one undisturbed window in twenty may alarm, so that a few hundred windows show whether it holds."""
WANTED = 0.95
Floats = NDArray[np.float64]
Answer = tuple[str, str]
"""A feature, and where it changed; an empty place is everywhere."""


@dataclass(frozen=True)
class Column:
    """One feature: a normal number, or a lognormal one, or levels. ``mean`` is per segment."""

    cells: FeatureCells
    mean: Floats
    sd: float
    skewed: bool = False

    def shares(self, segment: int, shift: float = 0.0, factor: float = 1.0, offset: float = 0.0) -> Floats:
        """The shares of the cells; values after a shift by so many standard deviations, and in another unit."""
        if self.cells.kind is Kind.CATEGORICAL:
            weights = np.exp(-self.mean[segment] * np.arange(len(self.cells.levels)) / 4)
            shares = np.zeros(self.cells.size)
            shares[: len(weights)] = weights / weights.sum()
            return shares
        at = (np.array(self.cells.edges) - offset) / factor
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(at > 0, np.log(at), -math.inf) if self.skewed else at
        below = ndtr((z - self.mean[segment]) / self.sd - shift)
        return np.concatenate([np.diff(below, prepend=0.0, append=1.0), np.zeros(len(self.cells.states))])


@dataclass(frozen=True)
class World:
    """A model and its traffic. ``places``: version, server and share of the rows."""

    columns: list[Column]
    places: list[tuple[str, str, float]]
    segments: list[tuple[str, float]]

    @staticmethod
    def of(rng: np.random.Generator) -> World:
        """Another one for each seed."""
        segments = [f"region=r{i}" for i in range(int(rng.integers(3, 5)))]
        columns = [_column(i, len(segments), rng) for i in range(FEATURES)]
        shares = _zipf(SERVERS)
        servers = rng.permutation(SERVERS)
        second, third = int(rng.integers(4, 8)), int(rng.choice([0, 3]))
        versions = ["2"] * second + ["3"] * third + ["1"] * (SERVERS - second - third)
        places = [(versions[i], f"s{s}", float(shares[s])) for i, s in enumerate(servers)]
        return World(columns, places, list(zip(segments, _zipf(len(segments)).tolist(), strict=True)))

    def traffic(self, rows: int, fault: Fault, rng: np.random.Generator) -> Traffic:
        """Counts of a window, drawn; the fault changes the shares of a feature's cells where it is."""
        usual = [[column.shares(i) for column in self.columns] for i in range(len(self.segments))]
        table, matrix = [], []
        numbers = rng.multinomial(rows, np.outer([p[2] for p in self.places], [s[1] for s in self.segments]).ravel())
        for (version, server, _), counts in zip(self.places, numbers.reshape(len(self.places), -1), strict=True):
            whole = np.zeros(sum(c.cells.size for c in self.columns), np.int64)
            for i, (segment, _) in enumerate(self.segments):
                shares = list(usual[i])
                if fault.is_at(version, server, segment):
                    shares[fault.feature] = fault.change(self.columns[fault.feature], i)
                drawn = np.concatenate([rng.multinomial(counts[i], p) for p in shares])
                whole += drawn
                table.append((version, server, segment, int(counts[i])))
                matrix.append(drawn)
            table.append((version, server, "", int(counts.sum())))
            matrix.append(whole)
        frame = pl.DataFrame(table, schema=["version", "server", "segment", "rows"], orient="row")
        plain = {"role": "live", "weight": 1.0, "failures": 0, "undeclared_keys": 0, "unplaced": 0}
        return Traffic(frame.with_columns(**{k: pl.lit(v) for k, v in plain.items()}), np.array(matrix))


@dataclass(frozen=True)
class Fault:
    """One feature that changes in some places (parts of their names), and how it is to be named."""

    feature: int
    places: tuple[str, ...]
    change: Callable[[Column, int], Floats]
    where: str = ""
    components: tuple[str, ...] = ()

    def is_at(self, *place: str) -> bool:
        """Whether rows of this version, server and segment have it."""
        return "everywhere" in self.places or bool({*place} & {*self.places})

    @property
    def answers(self) -> set[Answer]:
        """What is to be named."""
        return {(f"f{self.feature}", self.where)} if self.places else set()


def _column(number: int, segments: int, rng: np.random.Generator) -> Column:
    name = f"f{number}"
    if number >= FEATURES - CATEGORICAL:
        levels = tuple(f"l{i}" for i in range(int(rng.integers(3, 12))))
        cells = FeatureCells(name, Kind.CATEGORICAL, levels=levels)
        return Column(cells, rng.uniform(0.5, 2.0, segments), 1.0)
    skewed = bool(number % 2)
    sd = float(rng.uniform(0.5, 1.0) if skewed else rng.uniform(4.0, 10.0))
    mean = (3.0 if skewed else 15.0) + sd * rng.uniform(-0.3, 0.3, segments)
    z = rng.normal(mean[rng.integers(0, segments, FITTED_ROWS)], sd)
    return Column(numeric_cells(name, pl.Series(np.exp(z) if skewed else z)), mean, sd, skewed)


def _zipf(size: int) -> Floats:
    weights = 1 / np.arange(1, size + 1, dtype=np.float64)
    return np.asarray(weights / weights.sum())


NOTHING = Fault(0, (), Column.shares)


def _half_missing(column: Column, segment: int) -> Floats:
    shares = column.shares(segment) / 2
    shares[column.cells.state("missing")] = 0.5
    return shares


def _null(_: World, rng: np.random.Generator) -> Fault:
    return Fault(int(rng.integers(FEATURES)), ("everywhere",), _half_missing, components=("missing",))


def _stuck(world: World, rng: np.random.Generator) -> Fault:
    feature = int(rng.integers(FEATURES))
    common = world.columns[feature].shares(0).cumsum()
    cell = int(np.searchsorted(common, rng.uniform(0.2, 0.8)))
    return Fault(feature, ("everywhere",), lambda c, _: np.eye(c.cells.size)[cell], components=("stuck",))


def _shift(column: Column, segment: int) -> Floats:
    return column.shares(segment, SHIFT)


def _unit(column: Column, segment: int) -> Floats:
    return column.shares(segment, factor=1000.0) if column.skewed else column.shares(segment, factor=1.8, offset=32.0)


def _numeric(rng: np.random.Generator) -> int:
    return int(rng.integers(FEATURES - CATEGORICAL))


def _server(_: World, rng: np.random.Generator) -> Fault:
    server = f"s{rng.integers(SERVERS)}"
    return Fault(_numeric(rng), (server,), _shift, f"server {server}", ("location",))


def _unit_of_server(_: World, rng: np.random.Generator) -> Fault:
    server = f"s{rng.integers(SERVERS)}"
    return Fault(_numeric(rng), (server,), _unit, f"server {server}", ("units", "unseen"))


def _two_servers(_: World, rng: np.random.Generator) -> Fault:
    servers = sorted(f"s{i}" for i in rng.choice(SERVERS, 2, replace=False))
    return Fault(_numeric(rng), tuple(servers), _shift, f"servers {' and '.join(servers)}", ("location",))


def _version(world: World, rng: np.random.Generator) -> Fault:
    version = str(rng.choice(sorted({v for v, _, _ in world.places})))
    return Fault(_numeric(rng), (version,), _shift, f"version {version}", ("location",))


def _segment(world: World, rng: np.random.Generator) -> Fault:
    segment = str(rng.choice([s for s, _ in world.segments]))
    return Fault(_numeric(rng), (segment,), _shift, f"segment {segment}", ("location",))


KINDS: dict[str, Callable[[World, np.random.Generator], Fault]] = {
    "half of a column null": _null,
    "a stuck column": _stuck,
    "one server of 20, +0.3 sd": _server,
    "one server of 20, another unit": _unit_of_server,
    "one segment, +0.3 sd": _segment,
    "one version on some servers, +0.3 sd": _version,
    "two servers of 20, +0.3 sd": _two_servers,
    "nothing": lambda _, __: NOTHING,
}


@dataclass
class Tally:
    """Answers of one kind of fault over all seeds."""

    named: int = 0
    right: int = 0
    expected: int = 0
    well_told: int = 0
    alarms: int = 0
    alarms_at_5_percent: int = 0

    @property
    def precision(self) -> float:
        """Right answers of all answers."""
        return self.right / self.named if self.named else 1.0

    @property
    def recall(self) -> float:
        """Right answers of all that were planted."""
        return self.right / self.expected if self.expected else 1.0


def findings_of(world: World, fault: Fault, rng: np.random.Generator) -> list[Finding]:
    """The window's findings, against a reference window of the same model without the fault."""
    layout = Layout(tuple(c.cells for c in world.columns))
    before, now = (world.traffic(n, f, rng) for n, f in ((REFERENCE_ROWS, NOTHING), (ROWS, fault)))
    segments = {s: before.counts(segment=s) for s in before.segments()}
    spec = ModelSpec.model_validate(
        {
            "routing": "random",
            "windows": ["1h"],
            "monitors": ["drift", "servers", "versions"],
            "segments": {"region": [s.removeprefix("region=") for s, _ in world.segments]},
        }
    )
    reference = Reference("window", "", before.counts(), segments)
    model = Model("production", "m", spec, layout, {"": reference})
    return list(Measure(model, WINDOW, now, "1").findings())


def drifted(findings: list[Finding], budget: float) -> list[Verdict]:
    """The verdicts that alarm."""
    rules = ModelRules("production", "m", budget, HOUR)
    return [v for _, v in judge_window(POLICIES, rules, findings, HOUR) if v.state == "drifted"]


def play(seed: int, kind: str, tally: Tally) -> None:
    """One window: adds what was named."""
    rng = np.random.default_rng([seed, 6])
    world = World.of(rng)
    fault = KINDS[kind](world, rng)
    findings = findings_of(world, fault, rng)
    alarms = drifted(findings, BUDGET)
    causes = {(c.feature, c.where): c.component for v in alarms for c in v.causes}
    tally.named += len(causes)
    tally.expected += len(fault.answers)
    tally.right += len(causes.keys() & fault.answers)
    tally.well_told += sum(causes[a] in fault.components for a in causes.keys() & fault.answers)
    tally.alarms += bool(alarms)
    tally.alarms_at_5_percent += bool(drifted(findings, LARGE_BUDGET)) if not fault.places else 0


def lines() -> Iterator[Line]:
    """Precision and recall of (feature, place), over all kinds and for each, and false alarms where nothing changed."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for kind in KINDS:
        for seed in range(SEEDS):
            play(seed, kind, tallies[kind])
    planted = [t for kind, t in tallies.items() if kind != "nothing"]
    together = Tally(*(sum(getattr(t, name) for t in tallies.values()) for name in ("named", "right", "expected")))
    yield _line("places, all kinds", together)
    for kind, tally in zip(KINDS, planted, strict=False):
        line = _line(f"places, {kind}", tally)
        told = f"; named as it is {tally.well_told / max(1, tally.right):.3f}"
        yield Line(line.measure, line.wanted, line.result + told, line.reached)
    idle = tallies["nothing"]
    for what, share, alarms in (
        ("at the budget of 1 per week", BUDGET / (7 * 24), idle.alarms),
        ("at 5 %", 0.05, idle.alarms_at_5_percent),
    ):
        most = int(binom.ppf(0.975, SEEDS, share))
        result = f"{alarms} of {SEEDS} windows"
        yield Line(f"places, nothing, {what}", f"at most {most} of {SEEDS} windows", result, alarms <= most)


def _line(measure: str, tally: Tally) -> Line:
    result = f"{tally.precision:.3f}, {tally.recall:.3f}"
    reached = min(tally.precision, tally.recall) >= WANTED
    return Line(measure, f"precision, recall >= {WANTED}", result, reached)
