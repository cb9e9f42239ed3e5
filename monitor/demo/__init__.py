"""The demo: a fleet, a story, and Telltale watching it, on a clock that runs faster than real time."""

from __future__ import annotations

from monitor.demo.story import run_demo

__all__ = ["run_demo"]
