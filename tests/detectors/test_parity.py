"""Other tools' statistics on raw rows against the numbers that they gave, and against them where they are installed.

The numbers are of evidently 0.7.23 and NannyML 0.13.1, both on Python 3.11, pandas 2.3.3, numpy 2.4.6 and scipy 1.17.1
(Linux, x86-64).
"""

import json
from collections.abc import Callable

import polars as pl
import pytest
from peer_frames import RECORDED, asked, columns, series

from benchmarks.quality.peer_environments import PINNED, NoPeerError, installed
from detectors.parity import (
    EVIDENTLY_LEVELS,
    EVIDENTLY_NUMERIC,
    NANNYML_LEVELS,
    NANNYML_NUMERIC,
    ParityError,
    evidently,
    nannyml,
)

PEERS = json.loads(RECORDED.read_text())
OURS: dict[str, Callable[[str, pl.Series, pl.Series], float]] = {"evidently": evidently, "nannyml": nannyml}
METHODS = {
    "evidently": {*EVIDENTLY_NUMERIC, *EVIDENTLY_LEVELS},
    "nannyml": {*NANNYML_NUMERIC, *NANNYML_LEVELS},
}


@pytest.mark.parametrize("peer", OURS)
def test_every_value_is_the_one_that_the_tool_gave(peer: str) -> None:
    rows = {case: tuple(map(series, sides)) for case, sides in columns().items()}
    given = PEERS[peer]["values"]
    assert {name.partition("/")[2] for name in given} == METHODS[peer]
    for name, value in given.items():
        case, _, method = name.partition("/")
        assert OURS[peer](method, *rows[case]) == pytest.approx(value, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("peer", OURS)
def test_the_tool_still_gives_these_values(peer: str) -> None:
    if not installed(peer):
        pytest.skip(f"{peer} is not installed; python -m benchmarks.quality.peer_environments does it")
    assert PEERS[peer]["installed"] == list(PINNED[peer])
    assert asked(peer) == pytest.approx(PEERS[peer]["values"], rel=1e-12, abs=1e-12)


def test_whole_numbers_have_cells_of_at_least_one_unless_some_are_missing() -> None:
    rows = [series(side) for side in columns()["flag"]]
    assert evidently("hellinger", *rows) == pytest.approx(0, abs=1e-7)
    with_a_hole = [pl.concat([side, pl.Series([None], dtype=pl.Int64)]) for side in rows]
    assert evidently("hellinger", *with_a_hole) == pytest.approx(0.0711, abs=1e-3)


@pytest.mark.parametrize("tool", OURS.values())
def test_missing_values_and_infinite_numbers_are_left_out(tool: Callable[[str, pl.Series, pl.Series], float]) -> None:
    r, c = map(series, columns()["holes"])
    assert r.null_count()
    assert r.is_infinite().any()
    assert tool("hellinger", r, c) == tool("hellinger", r.filter(r.is_finite()), c.filter(c.is_finite()))


def test_what_a_tool_does_not_have_is_refused_in_words() -> None:
    numbers, levels = pl.Series([1.0, 2.0]), pl.Series(["a", "b"])
    with pytest.raises(ParityError, match=r"evidently has no 'chisquare' of numbers; it has psi, jensenshannon"):
        evidently("chisquare", numbers, numbers)
    with pytest.raises(ParityError, match="NannyML has no 'wasserstein' of levels"):
        nannyml("wasserstein", levels, levels)
    with pytest.raises(ParityError, match="no usable value"):
        nannyml("hellinger", numbers, pl.Series([None, float("nan")]))
    with pytest.raises(ParityError, match="as many rows on both sides, not 2 and 3"):
        evidently("g_test", levels, pl.Series(["a", "b", "b"]))


def test_a_tool_that_is_not_installed_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PINNED, "evidently", ("evidently==0",))
    with pytest.raises(NoPeerError, match="evidently is not installed in"):
        asked("evidently")
