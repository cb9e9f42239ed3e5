"""Fixed columns on which other tools' numbers were recorded, and recording them.

``python tests/support/peer_frames.py`` asks the tools, and writes ``tests/detectors/peer_values.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "detectors" / "peer_values.json"
Sides = tuple["np.ndarray[Any, np.dtype[Any]]", "np.ndarray[Any, np.dtype[Any]]"]


def columns() -> dict[str, Sides]:
    """Each case's reference and current rows; empty text and NaN are missing."""
    rng = np.random.default_rng(20_261_121)
    holes = rng.lognormal(size=2_600)
    holes[::9], holes[5::200] = np.nan, np.inf
    levels = np.array(["north", "south", "east", "west", "unknown"])
    usual = [0.4, 0.3, 0.2, 0.06, 0.04]
    text = rng.choice(levels, 2_600, p=usual)
    text[::11] = ""
    outlier = rng.normal(size=2_400)
    outlier[3] = 1e6
    return {
        "normal": (rng.normal(size=1_500), rng.normal(0.1, 1.1, 1_200)),
        "far": (rng.normal(size=1_500), rng.normal(8, 1, 900)),
        "tiny": (1e-5 * rng.normal(size=1_500), 1e-5 * rng.normal(1, 1, 1_500)),
        "holes": (holes[:1_400], holes[1_400:] * 1.2),
        "outlier": (outlier[:1_400], outlier[1_400:] + 1),
        "many": (rng.lognormal(0, 2, 12_000), rng.lognormal(0.2, 2, 3_000)),
        "whole": (rng.poisson(30, 1_500), rng.poisson(32, 1_400)),
        "whole_many": (rng.poisson(30, 11_000), rng.poisson(32, 1_400)),
        "few": (rng.poisson(2, 1_500), rng.poisson(2.3, 1_100)),
        "few_holes": (np.where(rng.random(900) < 0.1, np.nan, rng.poisson(2, 900)), 1.0 * rng.poisson(2.3, 800)),
        "constant": (np.full(800, 3.0), np.full(700, 3.0)),
        "levels": (rng.choice(levels, 1_500, p=usual), rng.choice(levels, 1_200, p=[0.36, 0.3, 0.2, 0.08, 0.06])),
        "same_size": (rng.choice(levels, 900, p=usual), rng.choice(levels, 900, p=[0.36, 0.3, 0.2, 0.08, 0.06])),
        "new_level": (rng.choice(levels[:4], 1_000), rng.choice(levels, 1_000, p=[0.25, 0.25, 0.25, 0.24, 0.01])),
        "lost_level": (rng.choice(levels, 1_000), rng.choice(levels[:4], 1_300)),
        "level_holes": (text[:1_400], text[1_400:]),
        "flag": (np.arange(900) % 2, (np.arange(800) % 5 < 3).astype(np.int64)),
        "flag_holes": (np.where(np.arange(900) % 9, np.arange(900) % 2, np.nan), 1.0 * (np.arange(800) % 5 < 3)),
        "two_levels": (rng.choice(levels[:2], 500), rng.choice(levels[:2], 400, p=[0.45, 0.55])),
    }


def series(values: np.ndarray[Any, np.dtype[Any]]) -> pl.Series:
    """As polars has it: missing is null."""
    if values.dtype.kind == "U":
        return pl.Series([text or None for text in values.tolist()])
    return pl.Series(values, nan_to_null=values.dtype.kind == "f")


def asked(name: str) -> dict[str, float]:
    """What a tool gives now. Raises NoPeerError where it is not installed."""
    from benchmarks.quality.peer_environments import ask

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.npz"
        cases = {f"{c}/{s}": v for c, sides in columns().items() for s, v in zip(SIDES, sides, strict=True)}
        np.savez(path, allow_pickle=False, **cases)
        return dict(ask(name, "values", str(path)))


SIDES = ("reference", "current")

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from benchmarks.quality.peer_environments import PINNED

    names = ("evidently", "nannyml")
    recorded = {name: {"installed": list(PINNED[name]), "values": asked(name)} for name in names}
    RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
