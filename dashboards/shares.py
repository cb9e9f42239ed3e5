"""The shares of rows in the cells of one feature, before and now, as a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.formats import number, share, share_change
from dashboards.markup import Html, tag
from dashboards.svg import drawing, label, level_line, nice_step
from dashboards.words import cell_name, text

UNUSABLE = ("missing", "not_finite", "wrong_kind")
"""Cells of rows without a usable value."""
ORDERED = re.compile(r"(below |above )?[-+]?[\d.]")
"""How the label of a cell of numbers begins: ``below 3``, ``-1.5 to 2``, ``12 ms``."""

MOST_ROWS = 9
WIDTH = 300.0
NAMES, BARS, ROW = 90.0, 104.0, 30.0
"""Paired bars: where the bars begin, how long they are at most, and how high a row is."""
TOP, BOTTOM, HEIGHT = 18.0, 124.0, 146.0
STATE_WIDTH = 60.0
CHARACTER = 5.6
"""The width of an average character of a label."""


@dataclass(frozen=True)
class Cell:
    """One cell of a feature: its label, and the share of rows in it on both sides."""

    label: str
    baseline: float
    now: float

    @property
    def name(self) -> str:
        """The label as people read it."""
        return cell_name(self.label)

    @property
    def tooltip(self) -> Html:
        """Name and shares, shown where the pointer rests."""
        return tag("title", f"{self.name}: {share_change(self.baseline, self.now)}")


def cells_of(picture: Mapping[str, Any]) -> list[Cell]:
    """The cells of a picture. A share that is no number counts as 0."""
    columns = (picture.get(name) or () for name in ("labels", "baseline_shares", "shares"))
    return [Cell(text(name), _share(before), _share(now)) for name, before, now in zip(*columns, strict=False)]


def comparison(cells: Sequence[Cell], description: str) -> Html:
    """Steps for the many cells of a number, paired bars otherwise."""
    valued = [c for c in cells if c.label not in UNUSABLE]
    ordered = bool(valued) and all(ORDERED.match(c.label) for c in valued)
    if ordered and len(cells) > MOST_ROWS:
        return _steps(valued, [c for c in cells if c.label in UNUSABLE], description)
    return _paired_bars(_largest(cells), description)


def _largest(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that differ most, in the order given, and one for all others."""
    if len(cells) <= MOST_ROWS:
        return list(cells)
    by_difference = sorted(range(len(cells)), key=lambda i: -abs(cells[i].now - cells[i].baseline))
    shown = sorted(by_difference[: MOST_ROWS - 1])
    others = [cells[i] for i in by_difference[MOST_ROWS - 1 :]]
    rest = Cell(f"{len(others)} others", sum(c.baseline for c in others), sum(c.now for c in others))
    return [*(cells[i] for i in shown), rest]


def _paired_bars(cells: Sequence[Cell], description: str) -> Html:
    scale = BARS / _top(cells)
    rows = [
        tag(
            "g",
            cell.tooltip,
            label(cell.name, NAMES - 8, i * ROW + 20, "end", most=15),
            tag("rect", class_="ref", x=NAMES, y=i * ROW + 6, width=cell.baseline * scale, height=8, rx=1),
            tag("rect", class_="now", x=NAMES, y=i * ROW + 16, width=cell.now * scale, height=8, rx=1),
            label(share_change(cell.baseline, cell.now), WIDTH, i * ROW + 20, "end", kind="value"),
        )
        for i, cell in enumerate(cells)
    ]
    axis = tag("line", class_="axis", x1=NAMES, x2=NAMES, y1=2, y2=len(cells) * ROW)
    return drawing(WIDTH, len(cells) * ROW + 2, description, rows, axis)


def _steps(valued: Sequence[Cell], states: Sequence[Cell], description: str) -> Html:
    """One step for each cell, all equally wide; rows without a usable value stand apart as bars."""
    right = WIDTH - len(states) * STATE_WIDTH
    width = (right - (8 if states else 0)) / len(valued)
    step = nice_step(_top([*valued, *states]), 2)
    top = max(step, _top([*valued, *states]))

    def height(value: float) -> float:
        return BOTTOM - value / top * (BOTTOM - TOP)

    levels = [level for level in (step, 2 * step) if level <= top * 1.001]
    now = [height(c.now) for c in valued]
    return drawing(
        WIDTH,
        HEIGHT,
        description,
        [level_line(0, WIDTH, height(level)) for level in levels],
        tag("path", class_="ref", d=_outline([height(c.baseline) for c in valued], width)),
        tag("path", class_="now-area", d=_outline(now, width)),
        tag("path", class_="now-line", d=_outline(now, width)),
        [_state(c, right + (i + 0.5) * STATE_WIDTH, height) for i, c in enumerate(states)],
        level_line(0, WIDTH, BOTTOM, "axis"),
        [label(share(level), 0, height(level) - 4, kind="tick") for level in levels],
        list(_ticks(valued, width)),
        [
            tag("rect", c.tooltip, class_="hover", x=i * width, y=TOP, width=width, height=BOTTOM - TOP)
            for i, c in enumerate(valued)
        ],
    )


def _state(cell: Cell, middle: float, height: Callable[[float], float]) -> Html:
    bars = [
        tag("rect", class_=kind, x=middle + shift, y=height(x), width=12, height=BOTTOM - height(x), rx=1)
        for kind, shift, x in (("ref", -13, cell.baseline), ("now", 1, cell.now))
    ]
    return tag("g", cell.tooltip, bars, label(cell.name, middle, BOTTOM + 15, "middle", kind="tick"))


def _ticks(cells: Sequence[Cell], width: float) -> Iterator[Html]:
    """The names of the first, the middle and the last cell."""
    whole, middle = len(cells) * width, (len(cells) - 1) // 2
    most = int(whole / 3 / CHARACTER)
    yield label(cells[0].name, 0, BOTTOM + 15, kind="tick", most=most)
    yield label(cells[middle].name, (middle + 0.5) * width, BOTTOM + 15, "middle", kind="tick", most=most)
    yield label(cells[-1].name, whole, BOTTOM + 15, "end", kind="tick", most=most)


def _outline(heights: Sequence[float], width: float) -> str:
    steps = "".join(f"V{y:.1f}H{(i + 1) * width:.1f}" for i, y in enumerate(heights))
    return f"M0 {BOTTOM:.1f}{steps}V{BOTTOM:.1f}"


def _top(cells: Sequence[Cell]) -> float:
    """The largest share; 1 where all are 0."""
    return max((x for c in cells for x in (c.baseline, c.now)), default=0.0) or 1.0


def _share(value: Any) -> float:
    return min(1.0, max(0.0, number(value) or 0.0))
