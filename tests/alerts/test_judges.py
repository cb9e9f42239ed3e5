"""Several judges share one ledger: each window is judged once, and in its order."""

from __future__ import annotations

import multiprocessing
import sys
from datetime import timedelta
from pathlib import Path

import judging
from alerting import BEGIN, HOUR, RULES, finding, ledger_at, office, window
from processes import Process, wait_until

from alerts.ledger import Claim
from alerts.policy import Policy

ROOT = Path(__file__).parents[2]
WINDOWS = 240
LEASE = timedelta(minutes=10)


def test_two_processes_make_the_tables_at_once_and_judge_every_window_once(ledger_url: str, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    judges = []
    try:
        for name in ("one", "two"):
            command = [sys.executable, judging.__file__, ledger_url, name, str(WINDOWS), str(gate)]
            judges.append(Process(command, tmp_path / f"{name}.log", {"PYTHONPATH": str(ROOT)}))
        wait_until(lambda: all("ready" in judge.output() for judge in judges), "both judges to be ready")
        gate.touch()
        wait_until(lambda: not any(judge.alive() for judge in judges), "both judges to be done")
    finally:
        for judge in judges:
            judge.kill()
    lines = [judge.output().splitlines() for judge in judges]
    assert [said[-1] for said in lines] == ["done", "done"], lines
    judged = sorted(int(line.split()[1]) for said in lines for line in said if line.startswith("judged"))
    assert judged == list(range(WINDOWS))
    with ledger_at(ledger_url) as ledger:
        assert [e.event for e in ledger.timeline()] == ["drift_found", "drift_cleared"] * (WINDOWS // 2)


def test_a_new_file_may_be_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(4, timeout=20)
    workers = [spawn.Process(target=judging.open_new_files, args=(tmp_path, 40, together)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_a_judge_that_was_paused_past_its_lease_changes_nothing(ledger_url: str) -> None:
    span, policy = window(0), Policy("inputs", "drift", hold=1)
    drift = [finding("drift", 0, p=1e-9, feature="age")]
    with ledger_at(ledger_url) as paused, ledger_at(ledger_url) as other:
        mine, theirs = (Claim("production", "churn", "traffic:3600s", span.start, span.end, who) for who in "ab")
        assert paused.claim(mine, BEGIN + HOUR, LEASE)
        woken = BEGIN + HOUR + LEASE
        assert other.claim(theirs, woken, LEASE)
        assert not office(paused, policy).desk.take(woken, RULES, drift, HOUR, mine), "another has it"
        paused.release(mine)
        assert not paused.claim(mine, woken, LEASE), "it could not let go of what is another's"
        assert paused.timeline() == []
        assert other.last_finished("production", "churn", "traffic:3600s") is None
        assert office(other, policy).desk.take(woken, RULES, drift, HOUR, theirs)
        told = other.timeline()
        assert [e.event for e in told] == ["drift_found"]
        assert not office(paused, policy).desk.take(woken, RULES, drift, HOUR, mine), "another has judged it"
        assert other.timeline() == told
