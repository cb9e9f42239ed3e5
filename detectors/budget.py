"""Where a budget of false alarms goes: to detectors, window lengths and single windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

WEEK = timedelta(weeks=1)
LARGEST_ALPHA = 0.499
"""A detector that is wrong in every other window tells nothing, whatever the budget."""
RESERVED = 0.1
"""Share of the budget for windows that are judged again, because events came late."""
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "drift": 4.0,
        "gradual_drift": 1.0,
        "server_outlier": 2.0,
        "version_contrast": 1.0,
        "joint": 1.0,
        "accuracy_drop": 2.0,
        "latency": 0.5,
        "errors": 0.5,
        "health": 0.5,
    }
)
"""How the rest is divided between the detectors that a model has.

What is held against a limit has a weight each, as each is corrected by itself, and a small one: a server that is over
its limit is so by much, and a tenth of the alpha asks for few more rows.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """Windows that a detector judges: how long they are, and from the start of one to that of the next."""

    detector: str
    length: timedelta
    step: timedelta


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of window may spend.

    per_week
        False windows a week.
    windows_per_week
        How many are judged.
    alpha
        Chance of a false alarm in one of them, all features, segments, versions and servers of the detector together:
        these share it by Holm's correction (``detectors.multiplicity.holm``).
    """

    look: Look
    per_week: float
    windows_per_week: float
    alpha: float

    def alpha_again(self, times: int) -> float:
        """For the same window when it is judged again, the first (``times`` is 1), second, ... time.

        1/2, 1/6, 1/12, 1/20 ... of the reserved share, so that all of them together stay within it, and a window that
        is judged again and again, as rows trickle in, is not blind to them.
        """
        return self.alpha * RESERVED / (1 - RESERVED) / (times * (times + 1))


def split(false_alarms_per_week: float, looks: Sequence[Look]) -> list[Share]:
    """The share of every look, in the order given.

    One tenth is kept for windows that are judged again. The rest goes to the detectors by their weights, and evenly
    to the window lengths of each. The expected number of false windows is the sum of all alphas, however windows
    depend on each other: windows that overlap alarm together, so there are fewer false alarms than false windows. It
    holds on average over references and models, and as far as the p-values do.

    >>> hour, day = timedelta(hours=1), timedelta(days=1)
    >>> shares = split(1.0, [Look("drift", hour, hour), Look("drift", day, day)])
    >>> [round(share.alpha * share.windows_per_week, 3) for share in shares]
    [0.45, 0.45]

    Raises ValueError for a negative budget, an unknown detector, and a look that is there twice.
    """
    if false_alarms_per_week < 0:
        raise ValueError(f"a budget of {false_alarms_per_week} false alarms a week: it must not be negative")
    for look in looks:
        if look.detector not in WEIGHTS:
            raise ValueError(f"detector {look.detector!r} has no share of the budget; those are {', '.join(WEIGHTS)}")
        if look.length <= timedelta(0) or look.step <= timedelta(0):
            raise ValueError(f"{look.detector}: windows of {look.length} every {look.step}; both must be positive")
    lengths = Counter(look.detector for look in looks)
    if len({(look.detector, look.length) for look in looks}) < len(looks):
        raise ValueError("a detector's windows of one length are there twice; they would spend twice")
    whole = sum(WEIGHTS[detector] for detector in lengths)
    shares = []
    for look in looks:
        per_week = false_alarms_per_week * (1 - RESERVED) * WEIGHTS[look.detector] / whole / lengths[look.detector]
        windows = WEEK / look.step
        shares.append(Share(look, per_week, windows, min(per_week / windows, LARGEST_ALPHA)))
    return shares
