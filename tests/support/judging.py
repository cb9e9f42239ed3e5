"""A judge in a process of its own: judges every window it can get, and prints the number of each that it judged.

Command line: database URL, name of the judge, number of windows, a file that exists once all may begin.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

from alerting import BEGIN, HOUR, RULES, finding, office, window

from alerts.ledger import Claim, Ledger
from alerts.policy import Policy

KIND = "traffic:3600s"
LEASE = timedelta(minutes=10)


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def judge(url: str, owner: str, count: int) -> None:
    """Drift in every other window, so that each window is told of by an event of its own."""
    ledger = Ledger(url)
    ledger.create()
    place = office(ledger, Policy("inputs", "drift", hold=1, clear=1))
    now = BEGIN + count * HOUR
    while (number := ((ledger.last_finished("production", "churn", KIND) or BEGIN) - BEGIN) // HOUR) < count:
        span = window(number)
        claim = Claim("production", "churn", KIND, span.start, span.end, owner)
        if ledger.claim(claim, now, LEASE):
            drift = finding("drift", number, p=0.5 if number % 2 else 1e-9, feature="age")
            if place.desk.take(now, RULES, [drift], HOUR, claim):
                say(f"judged {number}")
    ledger.close()


def open_new_files(folder: Path, count: int, together: Barrier) -> None:
    """Make one ledger after the other, each at the same moment as the others do."""
    for number in range(count):
        ledger = Ledger(f"sqlite:///{folder}/{number}.db")
        together.wait()
        ledger.create()
        ledger.close()


if __name__ == "__main__":
    url, owner, count, gate = sys.argv[1:]
    say("ready")
    while not Path(gate).exists():
        time.sleep(0.001)
    judge(url, owner, int(count))
    say("done")
