"""Whatever is killed, stopped or slow, and whenever: every event is there once, in rows and in every profile cell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from broker import Broker
from chaos import FOLDING, POINTS, Plan, run_chaos


def test_nothing_is_lost_and_nothing_is_counted_twice(broker: Broker, tmp_path: Path) -> None:
    report = run_chaos(Plan(), broker, tmp_path)
    assert report.exact, f"{report}\n{report.audit[:5]}"
    assert report.exit_codes == {0}
    assert report.events >= Plan().events
    assert all(report.faults[f"killed {point}"] for point in (*POINTS, FOLDING)), report


@pytest.mark.skipif("CHAOS_MUTANTS" not in os.environ, reason="takes two minutes; make chaos-mutants runs it")
@pytest.mark.parametrize(
    ("mutant", "kills_per_point", "random_kills", "stops"), [("no seek", 0, 2, 0), ("no intent", 1, 0, 2)]
)
def test_a_product_without_a_part_of_the_protocol_does_not_pass(
    mutant: str, kills_per_point: int, random_kills: int, stops: int, broker: Broker, tmp_path: Path
) -> None:
    plan = Plan(
        mutant=mutant,
        events=6_000,
        kills_per_point=kills_per_point,
        random_kills=random_kills,
        pauses_at_points=stops,
        random_pauses=0,
        clickhouse_kills=0,
        broker_kills=0,
        slow_spells=0,
        patience_seconds=10,
    )
    report = run_chaos(plan, broker, tmp_path)
    assert any(d.lost or d.duplicated for d in report.differences.values()), report
