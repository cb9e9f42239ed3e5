"""Whether the rest has a place's change, too."""

from __future__ import annotations

import numpy as np

from detectors.places import shared_change

SHARES = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
MOVED = np.array([0.05, 0.15, 0.3, 0.3, 0.2])


def draw(seed: int, rows: int, shares: np.ndarray) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(rows, shares).astype(np.float64)


def test_a_change_of_the_place_alone_is_not_shared() -> None:
    for seed in range(50):
        sides = (draw(seed, 20_000, SHARES), draw(100 + seed, 5_000, MOVED))
        shared = shared_change(*sides, draw(200 + seed, 50_000, SHARES), draw(300 + seed, 40_000, SHARES))
        assert shared is not None
        assert shared.high < 0.4


def test_a_change_of_both_is_shared_however_few_rows_the_rest_has() -> None:
    """With 150 rows nothing is significant, so that it is gone says nothing; the interval says so."""
    certain = 0
    for seed in range(200):
        sides = (draw(seed, 50_000, SHARES), draw(1000 + seed, 40_000, MOVED))
        shared = shared_change(*sides, draw(2000 + seed, 500, SHARES), draw(3000 + seed, 150, MOVED))
        assert shared is not None
        certain += shared.high < 0.5
    assert certain <= 20


def test_sides_that_differ_for_ever_share_nothing_and_what_has_not_changed_has_no_share() -> None:
    other = SHARES[::-1]
    shared = shared_change(SHARES * 1e4, MOVED * 1e4, other * 1e4, other * 1e4)
    assert shared is not None
    assert abs(shared.share) < 1e-9
    assert shared_change(SHARES * 1e4, SHARES * 1e4, SHARES * 1e4, MOVED * 1e4) is None
    assert shared_change(SHARES, MOVED, SHARES * 0, SHARES) is None
