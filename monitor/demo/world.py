"""The demo's world: people who ask for loans, who of them pays back, and two models that guess it.

Everything comes from a seed: which servers get version 2, which one has the unit bug, and which features shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

NUMERIC = ("income", "age", "utilisation", "tenure", "distance")
REGIONS = ("north", "south", "east", "west", "islands")
FAULTY_FEATURE = "distance"
TRAINING_ROWS = 20_000
SERVERS = tuple(f"pod-{i}" for i in range(1, 7))
KILOMETRES_PER_MILE = 1.609
SHIFT_SD = 0.45
NULL_SHARE = 0.12
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What will go wrong, decided by the seed and known to nobody else."""

    new_version_servers: tuple[str, ...]
    faulty_server: str
    shifted: tuple[str, str]
    nulled: str

    @staticmethod
    def of(seed: int) -> Plan:
        """The plan that belongs to a seed."""
        rng = np.random.default_rng([seed, 1])
        servers = tuple(sorted(rng.choice(SERVERS, 3, replace=False).tolist()))
        features = rng.permutation([n for n in NUMERIC if n != FAULTY_FEATURE]).tolist()
        return Plan(servers, str(rng.choice(servers)), (features[0], features[1]), features[2])


def people(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    """Some people as the upstream systems describe them."""
    return pl.DataFrame(
        {
            "income": np.exp(rng.normal(3.6, 0.45, rows)),
            "age": np.clip(rng.normal(44, 13, rows), 18, 95).round(),
            "utilisation": rng.beta(2, 3, rows),
            "tenure": rng.gamma(2.0, 3.0, rows),
            "distance": rng.gamma(4.0, 2.5, rows),
            "region": rng.choice(REGIONS, rows, p=(0.3, 0.25, 0.2, 0.2, 0.05)),
        }
    )


def pays_back(rng: np.random.Generator, table: pl.DataFrame) -> NDArray[np.bool_]:
    """The truth, which becomes known much later."""
    columns = {n: table[n].to_numpy() for n in NUMERIC}
    islands = (table["region"] == "islands").to_numpy()
    odds = (
        2.2 * (np.log(columns["income"]) - 3.6) / 0.45
        - 6.0 * (columns["utilisation"] - 0.4)
        + 0.25 * (columns["tenure"] - 6.0)
        - 0.30 * (columns["distance"] - 10.0)
        + 0.03 * (columns["age"] - 44)
        - 1.0 * islands
    )
    return np.asarray(rng.random(table.height) < 1 / (1 + np.exp(-odds)), np.bool_)


def upstream_change(
    table: pl.DataFrame, plan: Plan, spread: Mapping[str, float], rng: np.random.Generator
) -> pl.DataFrame:
    """What an upstream release does to everybody's features: two move by less than half a deviation, one turns null."""
    null = pl.Series(rng.random(table.height) < NULL_SHARE)
    moved = [pl.col(n) + SHIFT_SD * spread[n] for n in plan.shifted]
    return table.with_columns(*moved, pl.when(~null).then(pl.col(plan.nulled)).alias(plan.nulled))


def unit_bug(table: pl.DataFrame) -> pl.DataFrame:
    """One server sends miles where kilometres belong."""
    return table.with_columns(pl.col(FAULTY_FEATURE) / KILOMETRES_PER_MILE)


@dataclass(frozen=True)
class Guesser:
    """A trained model with the features it uses."""

    pipeline: Any
    features: Sequence[str]
    means: Mapping[str, float]

    def score(self, table: pl.DataFrame) -> NDArray[np.float64]:
        """The probability of paying back."""
        filled = table.select(pl.col(n).fill_null(self.means[n]) for n in self.features)
        return np.asarray(self.pipeline.predict_proba(filled.to_numpy())[:, 1])


def train(seed: int) -> tuple[pl.DataFrame, Mapping[str, Guesser]]:
    """The training table and both versions. Version 2 was trained without two features that matter."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng([seed, 2])
    table = people(rng, TRAINING_ROWS)
    truth = pays_back(rng, table)
    versions = {}
    for version, features in (("1", NUMERIC), ("2", ("age", "tenure", "distance", "utilisation"))):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        means = {n: float(table[n].mean()) for n in features}  # type: ignore[arg-type]  # of numbers it is a number
        versions[version] = Guesser(pipeline.fit(table.select(features).to_numpy(), truth), features, means)
    return table, versions
