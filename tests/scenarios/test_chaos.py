"""Whatever is killed, stopped or slow, and whenever: every event is there once, in rows and in every profile cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker import Broker
from chaos import FOLDING, POINTS, Plan, run_chaos


def test_nothing_is_lost_and_nothing_is_counted_twice(broker: Broker, tmp_path: Path) -> None:
    assert broker.node
    report = run_chaos(Plan(seed=1), broker, tmp_path)
    assert report.exact, f"{report}\n{report.audit[:5]}"
    assert report.events >= 24_000
    assert report.exit_codes == {0}
    assert all(report.faults[f"killed {point}"] >= 1 for point in (*POINTS, FOLDING)), report
