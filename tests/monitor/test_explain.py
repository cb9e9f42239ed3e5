"""``telltale explain``: the rows behind a finding."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats as st
from given import ndjson, prediction

from monitor.cli import main

HOUR = datetime(2026, 3, 2, 10, tzinfo=UTC)
SPAN = ("--from", "2026-03-02T11:00Z", "--to", "2026-03-02T12:00Z")
BEFORE, AFTER = (np.random.default_rng(1).normal(shift, 1, 400).round(3) for shift in (0.0, 0.5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hours of traffic, the second one shifted and with holes, and the first as a table."""
    events = [
        prediction(i, HOUR + timedelta(seconds=i), features={"x": x, "c": "ab"[i % 2]})
        for i, x in enumerate(BEFORE.tolist())
    ]
    events += [
        prediction(
            1_000 + i, HOUR + timedelta(hours=1, seconds=i), features={"x": None if i % 10 == 0 else x, "c": "a"}
        )
        for i, x in enumerate(AFTER.tolist())
    ]
    (tmp_path / "log.ndjson").write_bytes(ndjson(events))
    pl.DataFrame({"x": BEFORE}).write_parquet(tmp_path / "train.parquet")
    window = "{start: 2026-03-02T10:00Z, end: 2026-03-02T11:00Z}"
    (tmp_path / "telltale.yaml").write_text(
        f"models: {{m: {{features: {{x: numeric, c: categorical}}, reference: {{window: {window}}}}}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    monkeypatch.setattr(sys, "argv", ["telltale", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return out, err, int(ended.value.code or 0)


def test_rows_are_tested_against_those_of_the_reference(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.is_dir()
    told(monkeypatch, capsys, "import", "log.ndjson")
    answers = []
    for more in ((), ("--against", "train.parquet"), ("--against", "2026-03-02T10:00Z..2026-03-02T11:00Z")):
        out, err, code = told(monkeypatch, capsys, "explain", "m", "--feature", "x", *SPAN, "--json", *more)
        assert code == 0, err
        answers.append(json.loads(out))
    for answer in answers:
        kept = AFTER[np.arange(400) % 10 > 0]
        assert answer["p_value"] == pytest.approx(st.ks_2samp(kept, BEFORE).pvalue)
        assert (answer["rows"], answer["rows_reference"]) == (400, 400)
        assert (answer["missing"], answer["missing_reference"]) == (0.1, 0.0)
    out, err, code = told(monkeypatch, capsys, "explain", "m", "--feature", "c", *SPAN)
    assert code == 0, err
    assert "chi2_contingency: statistic" in out
    assert "total_variation 0.5" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--feature", "y", *SPAN), "there is no feature 'y' in the kept rows of the span; there are "),
        (("--feature", "x", *SPAN, "--test", "guess"), "guess: there is no such test of numbers; there are ks_2samp"),
        (("--feature", "x", "--from", "2027-01-01T00:00Z", "--to", "2027-01-02T00:00Z"), "there are no rows in"),
        (("--feature", "x", *SPAN, "--against", "none.parquet"), "none.parquet: there is no such file"),
        (("--feature", "x", *SPAN, "--against", "2026-03-02T10:00Z..2026-03-02T09:00Z"), "FROM must be before TO"),
        (("--feature", "x", *SPAN[2:], "--from", "2026-03-02T12:00Z"), "--from must be before --to"),
    ],
)
def test_what_cannot_be_explained_is_told_in_a_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert folder.is_dir()
    told(monkeypatch, capsys, "import", "log.ndjson")
    _, err, code = told(monkeypatch, capsys, "explain", "m", *arguments)
    assert code == 2
    assert message in err


def test_a_model_without_a_reference_needs_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "telltale.yaml").write_text("models: {m: {features: {x: numeric}}}\n")
    _, err, code = told(monkeypatch, capsys, "explain", "m", "--feature", "x", *SPAN)
    assert code == 2
    assert "has no reference in the configuration; name rows with --against" in err
