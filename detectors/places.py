"""How much of a place's change the rest has, too: whether a change is there only, or shows there as everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.drift import ONE_SIDED_95

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shared:
    """The rest's change in the direction of the place's, as a share of it: 0 when only the place changed, 1 when both.

    high
        The upper end of its one-sided 95 % interval.
    """

    share: float
    high: float


def shared_change(place_baseline: Floats, place: Floats, rest_baseline: Floats, rest: Floats) -> Shared | None:
    """How much of a place's change in one feature the rest of the window has, too.

    Each side is held against its own baseline, so sides that differ for ever are no change. That a change of the whole
    is not significant without the place is not enough: with most rows gone, hardly anything is. This says whether
    the rest would show it. All kinds of change count alike: the direction is that in which the place's cells moved.
    The place's own change is what is beyond chance. None where a side is empty, or the place did not change.

    >>> before, after = np.array([500.0, 500.0]), np.array([300.0, 700.0])
    >>> [round(shared_change(before, after, before, now).share, 2) for now in (before, after)]
    [0.0, 1.01]
    """
    sizes = [float(side.sum()) for side in (place_baseline, place, rest_baseline, rest)]
    if min(sizes) == 0:
        return None
    m, n, rest_m, rest_n = sizes
    w = (place_baseline + place + rest_baseline + rest) / sum(sizes)
    used = w > 0
    w = w[used]
    moved = (place / n - place_baseline / m)[used]
    direction = moved / w
    size = float(moved @ direction) - (len(w) - 1) * (1 / n + 1 / m)
    if size <= 0:
        return None
    also = float((rest / rest_n - rest_baseline / rest_m)[used] @ direction)
    spread = float(w @ direction**2) - float(w @ direction) ** 2
    error = math.sqrt(max(0.0, spread) * (1 / rest_n + 1 / rest_m))
    return Shared(also / size, (also + ONE_SIDED_95 * error) / size)
