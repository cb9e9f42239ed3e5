"""An action: a request that someone else carries out, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

ActionState = Literal["requested", "dispatched", "effective", "ineffective", "expired", "dry_run"]
IN_FLIGHT: tuple[ActionState, ...] = ("requested", "dispatched")
NOT_DONE: tuple[ActionState, ...] = ("expired", "dry_run")
REPORTS = ("started", "succeeded", "failed", "refused")
"""What whoever carries it out may say of it. It is recorded, and never taken for the effect."""


@dataclass(frozen=True, slots=True)
class Action:
    """A rollback of one model from the accused version to the target.

    state
        requested → dispatched (the receiver has it) → effective | ineffective, by what serves; or → dry_run.
        expired: no receiver took it in time.
    name
        The action's name in the configuration.
    effect_within, effect_share, settle
        What it takes to be effective, as configured when it was requested; see ``alerts.actions.rollback.Rollback``.
    accused_share
        Share of the model's rows that the accused version had when it was requested.
    deadline
        When the effect must show; None until dispatched.
    token_hash
        SHA-256 of the token for reports.
    """

    id: str
    name: str
    policy: str
    incident: str
    environment: str
    model: str
    version: str
    target: str
    accused_share: float
    state: ActionState
    dry_run: bool
    requested_at: datetime
    expires_at: datetime
    effect_within: timedelta
    effect_share: float
    settle: timedelta
    token_hash: str
    deadline: datetime | None = None

    @property
    def in_flight(self) -> bool:
        """It may still change what serves."""
        return self.state in IN_FLIGHT
