"""How the benchmark counts false alarms and tunes other tools' limits."""

import numpy as np

from benchmarks.quality.peers import APART, incidents, limits_of


def test_alarms_within_a_day_are_one_and_who_always_alarms_has_one_a_day() -> None:
    assert incidents([]) == 0
    assert incidents([5, 6, 7, 5 + APART]) == 1
    assert incidents(list(range(10 * (APART + 1)))) == 10


def test_limits_are_where_quiet_chunks_alarm_as_often_as_is_allowed() -> None:
    rng = np.random.default_rng(3)
    found = {f"quiet/1/numeric/{i}": rng.normal(size=4_000).tolist() for i in range(5)}
    found["quiet/1/levels/a"] = rng.exponential(size=4_000).tolist()
    found["changed/1/levels/a"] = [9.0] * 40
    limits = limits_of(found, 1, 12)
    above = np.any([np.array(v) > limits[n.split("/")[2]] for n, v in found.items() if n.startswith("quiet")], axis=0)
    assert set(limits) == {"numeric", "levels"}
    assert 10 <= incidents(np.flatnonzero(above).tolist()) <= 12
