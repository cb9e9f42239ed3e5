"""One feature's rows beside others, by any test that has a name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats as st

from benchmarks.quality.peer_environments import FOLDER, installed
from detectors.drilldown import NUMERIC, DrilldownError, explain, names_of_tests
from detectors.parity import evidently

ROOT = Path(__file__).parents[2]
rng = np.random.default_rng(4)
BEFORE, AFTER = rng.normal(size=900), rng.normal(0.2, 1.2, 700)
WORDS = (pl.Series(["a", "b", "b"] * 200), pl.Series(["a", "a", "b"] * 150))


def test_a_named_test_is_scipys_of_the_usable_rows() -> None:
    holed = pl.Series([*BEFORE.tolist(), None, None, float("nan"), float("inf")])
    found = explain(holed, pl.Series(AFTER), "mannwhitneyu")
    expected = st.mannwhitneyu(AFTER, BEFORE)
    assert (found.statistic, found.p_value) == (expected.statistic, expected.pvalue)
    assert (found.rows_reference, found.rows) == (904, 700)
    assert found.missing_reference == pytest.approx(2 / 904)


@pytest.mark.parametrize("name", NUMERIC)
def test_every_test_of_numbers_sees_a_large_shift(name: str) -> None:
    moved = explain(pl.Series(BEFORE), pl.Series(BEFORE[:600] * 2 + 1), name)
    assert moved.test == name
    if moved.p_value is None:
        assert (moved.statistic or 0) > 0.3
    else:
        assert moved.p_value < (0.002 if name != "median_test" else 1e-6)


def test_levels_are_tested_as_a_table() -> None:
    found = explain(*WORDS)
    expected = st.chi2_contingency([[200, 400], [300, 150]], correction=False)
    assert found.test == "chi2_contingency"
    assert (found.statistic, found.p_value) == (expected.statistic, expected.pvalue)
    assert "kolmogorov_smirnov" not in found.statistics
    assert found.statistics["total_variation"] == pytest.approx(1 / 3)


def test_every_name_that_is_listed_exists() -> None:
    for numeric, sides in ((True, (pl.Series(BEFORE[:200]), pl.Series(AFTER[:200]))), (False, WORDS)):
        for name in names_of_tests(numeric=numeric):
            try:
                explain(*sides, name)
            except DrilldownError as error:
                assert "no such test" not in str(error)  # noqa: PT017 - not every one takes these rows, or is installed


def test_other_tools_statistics_are_to_be_had_by_name() -> None:
    sides = (pl.Series(BEFORE), pl.Series(AFTER))
    assert explain(*sides, "evidently:psi").statistic == evidently("psi", *sides)
    assert explain(*sides, "nannyml:wasserstein").statistic == pytest.approx(st.wasserstein_distance(BEFORE, AFTER))


@pytest.mark.parametrize(
    ("sides", "name", "message"),
    [
        (WORDS, "ks_2samp", "ks_2samp: there is no such test of levels; there are chi2_contingency, evidently:TVD"),
        ((pl.Series(BEFORE), pl.Series(AFTER)), "guess", "there is no such test of numbers; there are ks_2samp"),
        ((pl.Series([None, None]), pl.Series(AFTER)), "", "the reference rows have no value that can be tested"),
        ((pl.Series(BEFORE), pl.Series([float("nan")])), "", "one side has no finite value"),
        (WORDS, "evidently:g_test", "as many rows on both sides"),
        ((pl.Series([1.0, 1.0]), pl.Series([1.0])), "epps_singleton_2samp", "too few of them, or they are all alike"),
        ((pl.Series([1.0]), pl.Series([2.0])), "anderson_ksamp", "no finite value for these rows; there are too few"),
        ((pl.Series([1.0] * 9), pl.Series([2.0] * 9)), "ttest_ind", "no finite value for these rows"),
    ],
)
def test_what_cannot_be_tested_is_told(sides: tuple[pl.Series, pl.Series], name: str, message: str) -> None:
    with pytest.raises(DrilldownError, match=message):
        explain(*sides, name)


def test_codes_on_one_side_and_texts_on_the_other_are_levels() -> None:
    codes, texts = pl.Series([1, 2] * 100), pl.Series(["1", "2", "2"] * 100)
    expected = st.chi2_contingency([[100, 100], [100, 200]], correction=False).pvalue
    assert explain(codes, texts).p_value == pytest.approx(expected)
    assert explain(codes, texts, "nannyml:l_infinity").statistic == pytest.approx(1 / 6)


def test_times_are_tested_as_numbers() -> None:
    days = pl.date_range(pl.date(2026, 1, 1), pl.date(2026, 12, 31), eager=True)
    assert (explain(days, days.dt.offset_by("60d")).p_value or 1) < 1e-3


INSIDE = """
import json, os, sys
import numpy as np, polars as pl
sys.path.append(sys.argv[1])
from detectors.drilldown import explain, names_of_tests
assert "evidently" not in sys.modules
rng = np.random.default_rng(4)
sides = pl.Series(rng.normal(size=300)), pl.Series(rng.normal(0.5, 1, 300))
words = pl.Series(["a", "b"] * 150), pl.Series(["a", "b", "b"] * 100)
found = {n: explain(*sides, n).statistic for n in ("evidently:anderson", "evidently:mannw", "evidently:t_test")}
found["evidently:z"] = explain(*words, "evidently:z").statistic
print(json.dumps({**found, "quiet": os.environ["DO_NOT_TRACK"]}))
"""


def test_evidentlys_own_tests_are_asked_where_it_is_installed() -> None:
    if not installed("evidently"):
        pytest.skip("evidently is not installed; python -m benchmarks.quality.peer_environments does it")
    packages = next((FOLDER / "evidently" / "lib").glob("python3*/site-packages"))
    command = [sys.executable, "-W", "ignore", "-c", INSIDE, str(packages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["quiet"] == "1"
    assert 0 < found["evidently:z"] < 1e-3
    assert found["evidently:t_test"] < 1e-3
    assert found["evidently:anderson"] == 0.001
