"""Where a model's budget of false alarms goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from alerts.policy import STATISTICAL, ModelRules, Policy, shares
from detectors.budget import RESERVED
from monitor.durations import format_duration
from monitor.store import Store

SECOND = timedelta(seconds=1)


def spending(store: Store, policies: Sequence[Policy], rules: ModelRules) -> dict[str, Any]:
    """The share of each look of the model's policies, and over how much it is spread in a window, by the last one.

    ``alpha`` is the chance of a false alarm in one window, ``per_week`` that times the windows of a week. Facts are no
    part of it.
    """
    rows = store.query("last_comparisons", environment=rules.environment, model=rules.model)
    last = {(row["detector"], row["seconds"]): row for row in rows.iter_rows(named=True)}
    watching = [p for p in policies if p.watches(rules.model)]
    looks = []
    for share in shares(watching, rules):
        look = share.look
        named = [p.name for p in watching if p.watch == look.detector and p.length(rules) == look.length]
        found = last.get((look.detector, look.length // SECOND), {})
        looks.append(
            {
                "watch": look.detector,
                "window": format_duration(look.length),
                "policies": named,
                "per_week": share.per_week,
                "windows_per_week": share.windows_per_week,
                "alpha": share.alpha,
                **{name: value for name, value in found.items() if name not in ("detector", "seconds")},
            }
        )
    return {
        "model": rules.model,
        "environment": rules.environment,
        "false_alarms_per_week": rules.false_alarms_per_week,
        "reserved_per_week": rules.false_alarms_per_week * RESERVED if looks else 0.0,
        "looks": looks,
        "outside": [p.name for p in watching if p.watch not in STATISTICAL],
    }
