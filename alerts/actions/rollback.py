"""Rolling a model back: when to ask for it, and how to tell that it worked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from alerts.action import NOT_DONE, Action
from alerts.incidents import Incident
from alerts.serving import Served, rows_of

CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Rollback:
    """Asks a notifier to put the version back that the accused one was measured against.

    dry_run
        The request is sent and marked so, and nothing is expected of it.
    cool_down
        Between two requests for one model, dry runs too.
    expires
        The receiver must not act on the request later than that after it was made.
    effect_within, effect_share, settle
        It is effective when, within ``effect_within`` after the receiver took it, for a span of ``settle`` the target
        had at least ``effect_share`` of the rows.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["rollback"]
    notifier: str
    dry_run: bool = True
    cool_down: timedelta = timedelta(hours=2)
    expires: timedelta = timedelta(minutes=15)
    effect_within: timedelta = timedelta(minutes=15)
    effect_share: float = 0.99
    settle: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if not 0.5 < self.effect_share <= 1:
            raise ValueError(f"effect_share is {self.effect_share}; it must be above 0.5 and at most 1")
        if self.cool_down < timedelta(0):
            raise ValueError("cool_down must not be negative")
        if min(self.expires, self.effect_within, self.settle) <= timedelta(0):
            raise ValueError("expires, effect_within and settle must be positive")
        if self.settle > self.effect_within:
            raise ValueError("settle is longer than effect_within, so that no rollback could ever be effective")


def refusal(
    rollback: Rollback,
    incident: Incident,
    serving: Served,
    firing: Sequence[Incident],
    earlier: Sequence[Action],
    now: datetime,
) -> str:
    """Why this rollback must not be asked for; empty when it may.

    serving
        What serves the model now.
    firing, earlier
        All firing incidents and all earlier actions of the model.
    """
    accused, target = incident.version, incident.baseline_version
    if not accused or not target:
        return "the evidence does not accuse one version against another, so there is no version to go back to"
    if not rows_of(serving, accused):
        return f"version {accused} does not serve now"
    if any(i.severity == "page" and i.version == target and not i.server for i in firing):
        return f"version {target} is itself accused by an alert that is firing"
    if any(a.version == target and a.state not in NOT_DONE for a in earlier):
        return f"version {target} was itself rolled back earlier"
    for action in earlier:
        if action.in_flight:
            return f"action {action.id} is still in flight"
    last = max((a.requested_at for a in earlier), default=None)
    if last is not None and now - last < rollback.cool_down:
        return f"the last request was {now - last} ago, and the cool-down is {rollback.cool_down}"
    return ""


def has_effect(action: Action, served: Served) -> bool:
    """Whether rows that were served in the last ``settle``, all of it after the request, prove the rollback.

    The target has its share of them. Of the share that the accused version had when the request was made, no more is
    left than the same fraction allows, so that a small canary is not taken for rolled back. And there are so many rows
    that all of them missing the accused version is no chance. So no rows prove nothing.
    """
    total = rows_of(served)
    if (1 - action.accused_share) ** total > CHANCE:
        return False
    left = rows_of(served, action.version) / total
    allowed = (1 - action.effect_share) * action.accused_share
    return target_share(action, served) >= action.effect_share and left <= allowed


def target_share(action: Action, served: Served) -> float:
    """The target's share of the rows; 0 without rows."""
    total = rows_of(served)
    return rows_of(served, action.target) / total if total else 0.0
