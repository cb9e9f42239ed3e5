"""The pictures show the numbers that they are given."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from dashboards.lines import Line, Point, line_chart, percentile_range
from dashboards.shares import Cell, cells_of, comparison

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def widths(svg: str, kind: str) -> list[float]:
    return [float(w) for w in re.findall(rf'<rect class="{kind}"[^>]* width="([\d.]+)"', svg)]


def level_heights(svg: str, kind: str) -> list[float]:
    """The heights of the steps of an outline above its base."""
    outline = re.search(rf'<path class="{kind}" d="M0 ([\d.]+)([^"]*)"', svg)
    assert outline is not None
    base = float(outline[1])
    return [base - float(y) for y in re.findall(r"V([\d.]+)H", outline[2])]


def points(count: int, value: float = 0.5, **more: float) -> list[Point]:
    return [Point(START + i * HOUR, START + (i + 1) * HOUR, value, **more) for i in range(count)]


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def test_bars_are_as_long_as_their_shares() -> None:
    svg = comparison([Cell("basic", 0.6, 0.3), Cell("premium", 0.4, 0.7)], "plan")
    assert svg.count("<rect") == 4
    before, now = widths(svg, "ref"), widths(svg, "now")
    assert before[0] / now[1] == pytest.approx(0.6 / 0.7, rel=0.01)
    assert now[0] / before[1] == pytest.approx(0.3 / 0.4, rel=0.01)


def test_steps_are_as_high_as_their_shares() -> None:
    before = [1 / 20] * 20
    now = [i / 190 for i in range(20)]
    cells = [Cell(f"{i} to {i + 1}", *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    svg = comparison(cells, "age")
    heights = level_heights(svg, "now-line")
    assert len(heights) == len(level_heights(svg, "ref")) == 20
    assert heights[10] / heights[19] == pytest.approx(10 / 19, abs=0.01)
    assert heights[19] / level_heights(svg, "ref")[0] == pytest.approx(0.1 / 0.05, rel=0.01)


def test_missing_values_stand_apart_from_the_steps() -> None:
    cells = [*(Cell(f"{i}", 0.05, 0.04) for i in range(20)), Cell("missing", 0.0, 0.2), Cell("wrong_kind", 0.0, 0.0)]
    svg = comparison(cells, "income")
    assert len(level_heights(svg, "now-line")) == 20
    assert ">missing</text>" in svg
    assert ">wrong kind</text>" in svg
    bars = [float(h) for h in re.findall(r'<rect class="now"[^>]* height="([\d.]+)"', svg)]
    assert bars[0] / level_heights(svg, "now-line")[0] == pytest.approx(0.2 / 0.04, rel=0.01)


def test_of_many_levels_those_that_differ_most_are_shown_and_the_rest_summed() -> None:
    cells = [Cell(f"town {chr(97 + i)}", 0.04, 0.04) for i in range(20)]
    cells[13] = Cell("town grown", 0.04, 0.24)
    svg = comparison(cells, "town")
    assert "town grown" in svg
    assert "12 others" in svg
    assert svg.count("<g>") == 9


def test_labels_are_readable() -> None:
    cells = [Cell(f"{i / 3:.6g} to {(i + 1) / 3:.6g}", 0.1, 0.1) for i in range(12)]
    svg = comparison(cells, "rate")
    assert ">0 to 0.333</text>" in svg
    assert ">3.67 to 4</text>" in svg
    assert "<title>0.333 to 0.667: " in svg


def test_shares_that_are_no_numbers_count_as_none() -> None:
    cells = cells_of(
        {"labels": ["a", "b", "c", "d"], "baseline_shares": [math.nan, None, -1, 0.5], "shares": [1, 2, 0]}
    )
    assert cells == [Cell("a", 0.0, 1.0), Cell("b", 0.0, 1.0), Cell("c", 0.0, 0.0)]
    assert "<svg" in comparison([Cell("a", 0.0, 0.0)], "nothing")


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    line = Line("1", 0, [Point(START, START + HOUR, 0.6), Point(START + HOUR, START + 2 * HOUR, 0.9)])
    svg = line_chart([line], "accuracy", percent, 1.0)
    first, second = re.findall(r'<circle class="dot v0" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert float(second[0]) > float(first[0])
    assert float(second[1]) < float(first[1])


def test_a_window_without_a_value_leaves_a_gap() -> None:
    whole, broken = points(6), points(6)
    broken[2] = Point(broken[2].start, broken[2].end, None)
    missing = [p for i, p in enumerate(points(6)) if i != 3]
    assert line_chart([Line("1", 0, whole)], "", percent).count('class="line v0"') == 1
    assert line_chart([Line("1", 0, broken)], "", percent).count('class="line v0"') == 2
    assert line_chart([Line("1", 0, missing)], "", percent).count('class="line v0"') == 2


def test_an_interval_is_a_band_or_around_a_single_window_a_bar() -> None:
    assert 'class="band v0"' in line_chart([Line("1", 0, points(3, low=0.4, high=0.6))], "", percent)
    assert 'class="error v0"' in line_chart([Line("1", 0, points(1, low=0.4, high=0.6))], "", percent)


def test_coverage_is_drawn_where_it_is_known() -> None:
    assert "labelled" in line_chart([Line("1", 0, points(3, coverage=0.7))], "", percent)
    assert "labelled" not in line_chart([Line("1", 0, points(3))], "", percent)


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    lines = [Line(f"v{i}", i, points(4, value=0.5 + i / 10_000)) for i in range(6)]
    svg = line_chart([*lines, Line("far", 0, points(4, value=0.9))], "", percent)
    ends = sorted(float(y) for y in re.findall(r'<text class="name v\d" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(ends) == 7
    assert min(b - a for a, b in pairwise(ends)) >= 13.9
    assert ends[-1] < 160


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-12, 1e99, -3.5])
def test_any_value_has_an_axis(value: float) -> None:
    svg = line_chart([Line("1", 0, points(1, value=value))], "", lambda v: f"{v:g}")
    assert 2 <= svg.count('class="grid"') <= 7
    assert "nan" not in svg


def test_an_accuracy_axis_does_not_go_beyond_one() -> None:
    svg = line_chart([Line("1", 0, points(3, value=0.99, low=0.98, high=1.0))], "", percent, 1.0)
    assert ">100%</text>" in svg
    assert ">101%</text>" not in svg


def test_nothing_known_is_no_picture() -> None:
    assert line_chart([], "", percent) == ""
    assert line_chart([Line("1", 0, [Point(START, START + HOUR, None)])], "", percent) == ""


def test_percentiles_stand_on_a_logarithmic_axis() -> None:
    svg = percentile_range([1.0, 10.0, 100.0], 1.0, 100.0, 0, "latency")
    low, middle, high = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg))
    assert middle - low == pytest.approx(high - middle)
    assert "nan" not in percentile_range([5.0, 5.0, 5.0], 5.0, 5.0, 0, "one value")
