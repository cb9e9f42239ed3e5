"""Numbers over windows as lines with their intervals, and percentiles as a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dashboards.formats import day, hour, near, share
from dashboards.markup import Content, Html, tag
from dashboards.svg import drawing, label, level_line, nice_step

WIDTH, LEFT, RIGHT = 440.0, 46.0, 372.0
TOP, BOTTOM = 14.0, 150.0
COVERAGE_TOP, COVERAGE_BOTTOM = 176.0, 198.0
LABEL_GAP = 14.0
MOST_TICKS = 4
DOTS_UP_TO = 60
DAY_SECONDS = 86_400.0
TIME_STEPS = (60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, DAY_SECONDS)


@dataclass(frozen=True)
class Point:
    """One window of a line. ``value`` None: not known there, and the line has a gap."""

    start: datetime
    end: datetime
    value: float | None
    low: float | None = None
    high: float | None = None
    coverage: float | None = None

    @property
    def time(self) -> float:
        """The middle of the window, in seconds."""
        return (self.start.timestamp() + self.end.timestamp()) / 2


@dataclass(frozen=True)
class Line:
    """The windows of one version, in order, and the number of its colour."""

    name: str
    colour: int
    points: Sequence[Point]


@dataclass(frozen=True)
class _Plane:
    """Where times and values stand in the picture."""

    first: float
    last: float
    low: float
    high: float

    def x(self, time: float) -> float:
        return LEFT + 8 + (time - self.first) / (self.last - self.first or 1.0) * (RIGHT - LEFT - 16)

    def y(self, value: float) -> float:
        return BOTTOM - (value - self.low) / (self.high - self.low) * (BOTTOM - TOP)


def line_chart(lines: Sequence[Line], description: str, text: Callable[[float], str], most: float = math.inf) -> Html:
    """Lines over windows with their intervals; below them the share of rows that have a label, where that is known.

    text
        Writes a value of the axis.
    most
        The largest value there can be.
    """
    points = [p for line in lines for p in line.points]
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    if not values:
        return Html()
    step, low, high = _range(min(values), max(values), most)
    plane = _Plane(min(p.time for p in points), max(p.time for p in points), low, high)
    levels = [low + i * step for i in range(round((high - low) / step) + 1)]
    covered = any(p.coverage is not None for p in points)
    bottom = COVERAGE_BOTTOM if covered else BOTTOM
    return drawing(
        WIDTH,
        bottom + 22,
        description,
        [level_line(LEFT, RIGHT, plane.y(level)) for level in levels],
        [label(text(level), LEFT - 6, plane.y(level) + 4, "end", kind="tick") for level in levels],
        list(_time_ticks(plane, bottom)),
        [_interval(line, run, plane) for line in lines for run in _runs(line.points)],
        [_line(line, run, plane) for line in lines for run in _runs(line.points)],
        [_hover(line, p, plane, text) for line in lines for p in line.points],
        list(_end_labels(lines, plane)),
        _coverage(lines, plane) if covered else None,
    )


def percentile_range(values: Sequence[float], least: float, most: float, colour: int, description: str) -> Html:
    """Three percentiles on a logarithmic axis from the least to the most: a bar, and a mark on each."""
    width, height = 110.0, 16.0

    def x(value: float) -> float:
        part = math.log(value / least) / math.log(most / least) if most > least else 0.5
        return 6 + part * (width - 12)

    marks = [tag("circle", cx=x(v), cy=height / 2, r=r) for v, r in zip(values, (3, 4.5, 3), strict=True)]
    bar = tag("line", x1=x(values[0]), x2=x(values[-1]), y1=height / 2, y2=height / 2)
    return drawing(width, height, description, tag("g", bar, marks, class_=f"range v{colour}"))


def _range(least: float, most: float, limit: float) -> tuple[float, float, float]:
    """The step of an axis and its ends, which hold all values."""
    span = (most - least) or abs(most) / 5 or 1.0
    step = nice_step(span * 1.1, MOST_TICKS)
    low = math.floor((least - span * 0.05) / step) * step
    high = math.ceil((most + span * 0.05) / step) * step
    if most <= limit < high:
        high = math.ceil(limit / step - 1e-9) * step
    return step, max(0.0, low) if least >= 0 else low, high


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Neighbouring windows with a value."""
    run: list[Point] = []
    for point in points:
        if run and (point.value is None or point.start > run[-1].end):
            yield run
            run = []
        if point.value is not None:
            run.append(point)
    if run:
        yield run


def _interval(line: Line, run: Sequence[Point], plane: _Plane) -> Html | None:
    known = [
        (plane.x(p.time), plane.y(p.low), plane.y(p.high)) for p in run if p.low is not None and p.high is not None
    ]
    if not known:
        return None
    if len(known) == 1:
        x, low, high = known[0]
        return tag("line", class_=f"error v{line.colour}", x1=x, x2=x, y1=low, y2=high)
    outline = [(x, high) for x, _, high in known] + [(x, low) for x, low, _ in reversed(known)]
    return tag("path", class_=f"band v{line.colour}", d=f"{_path(outline)}Z")


def _line(line: Line, run: Sequence[Point], plane: _Plane) -> Content:
    places = [(plane.x(p.time), plane.y(p.value)) for p in run if p.value is not None]
    dots = places if len(line.points) <= DOTS_UP_TO else places[-1:]
    return [
        tag("path", class_=f"line v{line.colour}", d=_path(places)),
        [tag("circle", class_=f"dot v{line.colour}", cx=x, cy=y, r=2.5) for x, y in dots],
    ]


def _hover(line: Line, point: Point, plane: _Plane, text: Callable[[float], str]) -> Html | None:
    if point.value is None:
        return None
    interval = "" if point.low is None or point.high is None else f" ({text(point.low)} to {text(point.high)})"
    words = f"version {line.name}, {near(point.start, None)} to {near(point.end, point.start)}: {text(point.value)}"
    title = tag("title", words + interval)
    return tag("circle", title, class_="hover", cx=plane.x(point.time), cy=plane.y(point.value), r=8)


def _end_labels(lines: Sequence[Line], plane: _Plane) -> Iterator[Html]:
    """The names of the lines at their right ends, moved apart where they would overlap."""
    ends = []
    for line in lines:
        known = [p for p in line.points if p.value is not None]
        if known and known[-1].value is not None:
            ends.append((plane.y(known[-1].value), line))
    ends.sort(key=lambda end: end[0])
    lowest = -math.inf
    room = BOTTOM - LABEL_GAP * (len(ends) - 1)
    for i, (y, line) in enumerate(ends):
        lowest = max(lowest + LABEL_GAP, min(y, room + i * LABEL_GAP))
        yield label(line.name, RIGHT + 6, lowest + 4, kind=f"name v{line.colour}", most=10)


def _coverage(lines: Sequence[Line], plane: _Plane) -> Content:
    def y(value: float) -> float:
        return COVERAGE_BOTTOM - min(1.0, max(0.0, value)) * (COVERAGE_BOTTOM - COVERAGE_TOP)

    known = [
        (line, [(plane.x(p.time), y(p.coverage)) for p in line.points if p.coverage is not None]) for line in lines
    ]
    return [
        level_line(LEFT, RIGHT, COVERAGE_TOP),
        level_line(LEFT, RIGHT, COVERAGE_BOTTOM),
        label(share(1), LEFT - 6, COVERAGE_TOP + 4, "end", kind="tick"),
        label(share(0), LEFT - 6, COVERAGE_BOTTOM + 4, "end", kind="tick"),
        label("labelled", RIGHT + 6, (COVERAGE_TOP + COVERAGE_BOTTOM) / 2 + 4, kind="tick"),
        [tag("path", class_=f"line v{line.colour}", d=_path(places)) for line, places in known if len(places) > 1],
        [
            tag("circle", class_=f"dot v{line.colour}", cx=x, cy=at, r=2)
            for line, places in known
            if len(places) == 1
            for x, at in places
        ],
    ]


def _time_ticks(plane: _Plane, bottom: float) -> Iterator[Html]:
    span = plane.last - plane.first
    step = next((s for s in TIME_STEPS if span / s <= MOST_TICKS), 0.0)
    step = step or math.ceil(span / MOST_TICKS / DAY_SECONDS) * DAY_SECONDS
    at = math.ceil(plane.first / step) * step
    times = [at + i * step for i in range(int((plane.last - at) // step) + 1)] if span else [plane.first]
    for time in times:
        moment = datetime.fromtimestamp(time, UTC)
        midnight = time % DAY_SECONDS == 0
        yield label(day(moment)[:-5] if midnight else hour(moment), plane.x(time), bottom + 16, "middle", kind="tick")


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
