"""Scenarios: rules tried on made-up traffic. A file says what comes, what changes, and what should be said of it."""

from __future__ import annotations

from monitor.scenarios.file import Scenario, load_scenario
from monitor.scenarios.play import Fired, Outcome, play

__all__ = ["Fired", "Outcome", "Scenario", "load_scenario", "play"]
