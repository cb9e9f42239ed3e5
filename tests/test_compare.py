"""telltale.compare: two tables of any of three libraries, and what is said about every kind of column."""

import gzip
import io
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.stats as st
from hypothesis import given, settings
from hypothesis import strategies as some

import telltale
from detectors.compare import compare_frames
from detectors.finding import Status
from detectors.layout import Column
from detectors.pooled import EDGE_ROWS, pooled_counts

ADULT = [
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
]


def table(rows: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "amount": rng.lognormal(size=rows),
            "age": rng.integers(18, 90, rows),
            "items": rng.poisson(2, rows),
            "country": rng.choice(["NL", "BE", "DE"], rows, p=[0.6, 0.3, 0.1]),
            "member": rng.random(rows) < 0.3,
            "since": [date(2020, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 2_000, rows)],
        }
    ).with_columns(amount=pl.when(pl.Series(rng.random(rows) < 0.95)).then("amount"))


def changed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        age=pl.col("age") + 9,
        country=pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("FR")).otherwise("country"),
    )


def test_what_changed_is_named_worst_first() -> None:
    report = telltale.compare(table(2_000), changed(table(2_000, seed=1)))
    assert report.drifted == ("age", "country")
    by_name = {f.subject.feature: f for f in report.findings}
    assert by_name["age"].component == "location"
    assert by_name["country"].contributions[0].cell == "FR"
    assert [f.subject.feature for f in report.findings][:2] == ["age", "country"]
    assert report.judged
    assert report.reason == ""


def test_two_samples_of_the_same_rows_have_not_drifted() -> None:
    assert telltale.compare(table(2_000), table(3_000, seed=1)).drifted == ()


def test_pandas_polars_and_pyarrow_tables_give_the_same_report() -> None:
    before, after = table(1_000), changed(table(1_000, seed=1))
    reports = [
        telltale.compare(before, after),
        telltale.compare(before.to_arrow(), after.to_arrow()),
        telltale.compare(before.to_pandas(), after.to_pandas()),
        telltale.compare(before, after.to_pandas()),
    ]
    for other in reports[1:]:
        assert other.to_dict() == reports[0].to_dict()


def test_missing_values_of_pandas_are_missing_and_nan_of_polars_is_not_finite() -> None:
    numbers, gaps = [1.0] * 400, [1.0, float("nan")] * 200
    in_pandas = telltale.compare(pd.DataFrame({"x": numbers}), pd.DataFrame({"x": gaps}))
    in_polars = telltale.compare(pl.DataFrame({"x": numbers}), pl.DataFrame({"x": gaps}))
    assert [r.findings[0].component for r in (in_pandas, in_polars)] == ["missing", "unusable"]


@settings(max_examples=20, deadline=None)
@given(some.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_has_no_influence(seed: int) -> None:
    before, after = table(300), changed(table(400, seed=1))
    shuffled = telltale.compare(
        before.sample(fraction=1, shuffle=True, seed=seed), after.sample(fraction=1, shuffle=True, seed=seed)
    )
    assert shuffled.to_dict() == telltale.compare(before, after).to_dict()


def test_the_order_of_the_rows_of_long_columns_has_no_influence() -> None:
    rng = np.random.default_rng(3)
    before, after = pl.DataFrame({"x": rng.normal(size=3 * EDGE_ROWS)}), pl.DataFrame({"x": rng.normal(size=90_000)})
    forward = telltale.compare(before, after)
    assert telltale.compare(before.reverse(), after.sort("x")).to_dict() == forward.to_dict()


def test_cells_do_not_depend_on_which_table_a_row_is_in() -> None:
    rng = np.random.default_rng(4)
    rows = pl.Series("x", rng.normal(size=200_000))
    one = pooled_counts("x", rows[:50_000], rows[50_000:])
    other = pooled_counts("x", rows[150_000:], rows[:150_000])
    assert one.cells == other.cells
    assert (one.baseline + one.current).tolist() == (other.baseline + other.current).tolist()


@pytest.mark.parametrize("rows", [1_000, 150_000])
def test_counts_of_a_column_are_those_of_its_cells(rows: int) -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_t(2, rows)
    values[:30], values[30:50] = np.nan, np.inf
    before = pl.Series("x", values)
    after = pl.Series("x", [None, *values[: rows // 2]])
    counted = pooled_counts("x", before, after)
    for series, counts in ((before, counted.baseline), (after, counted.current)):
        cells = counted.cells.cells(Column.of(series))
        assert counts.tolist() == np.bincount(cells, minlength=counted.cells.size).tolist()
    inner = (counted.baseline + counted.current)[1:33]
    assert inner.min() > 0.8 * inner.mean()
    assert counted.baseline[[0, 33]].sum() + counted.current[[0, 33]].sum() == 0


def test_random_halves_of_real_looking_tables_alarm_at_the_nominal_rate() -> None:
    rows, repetitions = table(1_200, seed=6), 300
    alarms = 0
    for seed in range(repetitions):
        dealt = rows.sample(fraction=1, shuffle=True, seed=seed)
        alarms += bool(compare_frames(dealt[:400], dealt[400:]).drifted)
    assert alarms <= st.binom.ppf(0.999, repetitions, 0.05)
    loose = sum(
        bool(compare_frames(dealt[:400], dealt[400:], false_alarms=0.5).drifted)
        for dealt in (rows.sample(fraction=1, shuffle=True, seed=seed) for seed in range(60))
    )
    assert 0 < loose <= st.binom.ppf(0.999, 60, 0.5)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {
    "all missing": pl.Series([None] * 400),
    "constant": pl.Series([7.0] * 400),
    "nan": pl.Series([float("nan")] * 400),
    "infinite": pl.Series([1.0, float("inf"), -float("inf"), 2.0] * 100),
    "huge": pl.Series(1.7e308 * np.linspace(-1, 1, 400)),
    "tiny": pl.Series(np.linspace(0, 1e-300, 400)),
    "bool": pl.Series([True, False] * 200),
    "enum": pl.Series(["a", "b"] * 200, dtype=pl.Enum(["a", "b", "c"])),
    "categories": pl.Series(["a", "b"] * 200, dtype=pl.Categorical),
    "text": pl.Series([f"t{i}" for i in range(400)]),
    "decimal": pl.Series([Decimal("1.5"), Decimal("2.25")] * 200),
    "date": pl.Series([NOW.date() + timedelta(days=i) for i in range(400)]),
    "datetime": pl.Series([NOW + timedelta(hours=i) for i in range(400)]),
    "datetime in ms": pl.Series([NOW + timedelta(hours=i) for i in range(400)]).cast(pl.Datetime("ms")),
    "duration": pl.Series([timedelta(seconds=i) for i in range(400)]),
    "time": pl.Series([time(i % 24, i % 60) for i in range(400)]),
    "unsigned": pl.Series([2**63 + 4096 * i for i in range(400)], dtype=pl.UInt64),
    "rows": pl.Series(["a level column named rows"] * 400),
    "": pl.Series(range(400)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_kind_of_column_can_be_compared_with_itself(name: str) -> None:
    frame = pl.DataFrame({name: COLUMNS[name]})
    report = telltale.compare(frame, frame)
    assert [f.status for f in report.findings] == [Status.MEASURED]
    assert report.drifted == ()
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", [n for n in COLUMNS if n not in ("all missing", "constant", "nan", "rows")])
def test_every_kind_of_column_is_seen_to_change(name: str) -> None:
    values = COLUMNS[name].sort()
    before, after = (pl.DataFrame({name: half.gather(np.arange(400) % 200)}) for half in (values[:200], values[200:]))
    assert telltale.compare(before, after).drifted == (name,)


@pytest.mark.parametrize("name", [n for n in COLUMNS if n != "all missing"])
def test_every_kind_of_column_is_seen_to_vanish(name: str) -> None:
    frame = pl.DataFrame({name: COLUMNS[name]})
    gone = pl.DataFrame({name: [None] * 400})
    assert telltale.compare(frame, gone).drifted == (name,)
    report = telltale.compare(gone, frame)
    assert report.drifted == (name,)
    assert report.findings[0].component == "missing"


def test_times_are_compared_across_units_and_zones() -> None:
    dates = pl.Series([date(2026, 1, 1) + timedelta(days=i) for i in range(400)])
    for other in (pl.Datetime("ms"), pl.Datetime("ns"), pl.Datetime("us", "UTC")):
        assert telltale.compare(pl.DataFrame({"t": dates}), pl.DataFrame({"t": dates.cast(other)})).drifted == ()


def test_columns_of_one_table_only_have_drifted() -> None:
    frame = table(500)
    report = telltale.compare(frame, frame.drop("age").with_columns(height=pl.lit(1.0)))
    assert (report.missing_columns, report.new_columns) == (("age",), ("height",))
    assert set(report.drifted) == {"age", "height"}
    assert {f.component for f in report.findings if report.is_drifted(f)} == {"schema"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["1", "2"], [1, 2], "text in the reference, numbers in the current rows"),
        ([1.5, 2.5], [True, False], "numbers in the reference, booleans in the current rows"),
        ([date(2026, 1, 1)] * 2, ["2026-01-01"] * 2, "dates in the reference, text in the current rows"),
    ],
)
def test_another_kind_of_value_is_a_change_of_the_schema(
    before: list[object], after: list[object], message: str
) -> None:
    report = telltale.compare(pl.DataFrame({"x": before * 200}), pl.DataFrame({"x": after * 200}))
    assert report.drifted == ("x",)
    assert (report.findings[0].component, report.findings[0].message) == ("schema", message)


def test_columns_that_cannot_be_compared_spoil_nothing() -> None:
    odd = pl.DataFrame({"list": [[1, 2]] * 400, "struct": [{"a": 1}] * 400, "bytes": [b"a"] * 400, "x": range(400)})
    report = telltale.compare(odd, odd.with_columns(x=pl.col("x") + 100))
    assert report.drifted == ("x",)
    skipped = {f.subject.feature: f for f in report.findings if f.status is Status.ERROR}
    assert set(skipped) == {"list", "struct", "bytes"}
    assert "List(Int64)" in skipped["list"].message
    assert "not judged: list" in repr(report)


@pytest.mark.parametrize(
    "values",
    [
        pd.period_range("2026", periods=400, freq="h"),
        pd.arrays.IntervalArray.from_breaks(range(401)),
        np.arange(400) + 1j,
        np.arange(400).astype(np.longdouble),
    ],
    ids=["periods", "intervals", "complex numbers", "long doubles"],
)
def test_pandas_columns_that_no_other_library_has_spoil_nothing(values: object) -> None:
    odd = pd.DataFrame({"odd": values, "x": range(400)})
    report = telltale.compare(odd, odd.assign(x=odd["x"] + 100))
    assert report.drifted == ("x",)
    assert "not judged: odd: columns of type" in repr(report)


def test_sparse_columns_of_pandas_are_compared() -> None:
    flags = pd.get_dummies(pd.Series(["a", "b", "c", "c"] * 100), sparse=True)
    assert telltale.compare(flags, flags).drifted == ()
    assert telltale.compare(flags, flags.assign(a=flags["b"] | flags["c"])).drifted == ("a",)


@pytest.mark.parametrize(
    ("start", "every", "cell"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1), "2027-02-04"),
        (datetime(2026, 1, 1, tzinfo=UTC), timedelta(minutes=1), "2026-01-01 06:39:00"),
        (date(2026, 1, 1), timedelta(days=1), "2027-02-04"),
    ],
)
def test_times_are_shown_as_times(start: date, every: timedelta, cell: str) -> None:
    before = [start + i * every for i in range(400)]
    report = telltale.compare(pl.DataFrame({"t": before}), pl.DataFrame({"t": [before[-1]] * 400}))
    assert f"{cell}: 0.2% to 100.0%" in repr(report)
    assert "e+09" not in json.dumps(report.to_dict())


def test_numbers_that_are_close_are_shown_with_the_digits_that_tell_them_apart() -> None:
    before, after = ([2**40 + i % 4 for i in range(n, 400 + n)] for n in (0, 2))
    report = telltale.compare(pl.DataFrame({"id": before}), pl.DataFrame({"id": [after[0]] * 400}))
    assert "1099511627778: 25.0% to 100.0%" in repr(report)


def test_a_pandas_column_of_mixed_values_spoils_nothing() -> None:
    mixed = pd.DataFrame({"mixed": [1, "one", None, object()] * 100, "x": range(400)})
    report = telltale.compare(mixed, mixed.assign(x=mixed["x"] + 100))
    assert report.drifted == ("x",)
    assert "mixed" in repr(report)


@pytest.mark.parametrize(("before", "after"), [(199, 500), (500, 199), (0, 500), (0, 0)])
def test_too_few_rows_are_not_judged(before: int, after: int) -> None:
    report = telltale.compare(table(500)[:before], table(500)[:after])
    assert not report.judged
    assert report.drifted == ()
    assert "200 are needed" in report.reason
    assert repr(report).startswith("Not judged")


def test_tables_without_columns_are_not_judged() -> None:
    report = telltale.compare(pl.DataFrame(), pl.DataFrame())
    assert not report.judged
    assert "no columns" in report.reason
    assert len(report.to_pandas()) == 0


@pytest.mark.parametrize("false_alarms", [0.0, 1.0, -0.1, 5.0])
def test_a_chance_that_is_none_is_refused(false_alarms: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        telltale.compare(table(300), table(300), false_alarms)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="current is a dict; give a pandas, polars or pyarrow table"):
        telltale.compare(table(300), {"x": [1]})
    with pytest.raises(TypeError, match="reference is a Series"):
        telltale.compare(pd.Series([1.0]), table(300))
    with pytest.raises(ValueError, match="reference has more than one column named 'x'"):
        telltale.compare(pa.table([[1], [2]], names=["x", "x"]), table(300))


def test_the_report_reads_as_a_table() -> None:
    report = telltale.compare(table(2_000), changed(table(2_000, seed=1)).rename({"items": "lines"}))
    lines = repr(report).splitlines()
    assert lines[0].startswith("4 of 7 columns drifted (2,000 reference rows, 2,000 current rows")
    assert [line.split()[0] for line in lines[1:]] == ["column", "items", "lines", "age", "country"]
    assert "only in the reference" in lines[2]
    assert "FR: 0.0% to 2.0%" in lines[5]


def test_the_report_as_a_pandas_frame_and_as_json() -> None:
    report = telltale.compare(table(1_000), changed(table(1_000, seed=1)))
    frame = report.to_pandas()
    assert frame["column"].tolist() == [f.subject.feature for f in report.findings]
    assert frame.loc[frame["drifted"], "column"].tolist() == list(report.drifted)
    assert {"p_value", "adjusted_p_value", "component", "jensen_shannon", "location_auc"} <= set(frame.columns)
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read["drifted"] == ["age", "country"]
    assert read["judged"] is True
    assert (read["rows_reference"], read["rows_current"]) == (1_000, 1_000)
    assert [c["column"] for c in read["columns"]] == frame["column"].tolist()


def test_importing_telltale_loads_no_heavy_library() -> None:
    code = "import sys, telltale; print([m for m in ('polars', 'pandas', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_comparing_polars_frames_needs_neither_pandas_nor_scipy_stats() -> None:
    code = (
        "import sys, polars, telltale; f = polars.DataFrame({'x': range(300)}); telltale.compare(f, f);"
        "print([m for m in ('pandas', 'scipy.stats', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def adult(part: str, *, gaps: bool) -> pl.DataFrame:
    """One file of the census data without its label; ``?`` as a level or as a gap."""
    folder = os.environ.get("TELLTALE_TEST_DATA")
    if not folder:
        pytest.skip("TELLTALE_TEST_DATA does not name the data folder")
    text = gzip.decompress((Path(folder) / f"adult_{part}.csv.gz").read_bytes()).replace(b", ", b",").strip()
    null_values = ["?"] if gaps else []
    frame = pl.read_csv(io.BytesIO(text), has_header=False, new_columns=ADULT, null_values=null_values)
    return frame.drop("income")


@pytest.mark.parametrize("gaps", [True, False])
def test_census_files_that_are_a_random_split_have_not_drifted(gaps: bool) -> None:
    train, test = adult("train", gaps=gaps), adult("test", gaps=gaps)
    report = telltale.compare(train, test)
    assert (report.rows_reference, report.rows_current) == (32_561, 16_281)
    assert report.drifted == ()
    assert all(f.status is Status.MEASURED for f in report.findings)
    assert len(report.findings) == 14


def test_census_rows_with_a_planted_change_have_drifted() -> None:
    train, test = adult("train", gaps=True), adult("test", gaps=True)
    older = test.with_columns(age=pl.col("age") + 2, race=pl.when(pl.int_range(pl.len()) % 40 > 0).then("race"))
    report = telltale.compare(train, older)
    assert set(report.drifted) == {"age", "race"}
    components = {f.subject.feature: f.component for f in report.findings}
    assert (components["age"], components["race"]) == ("location", "missing")
