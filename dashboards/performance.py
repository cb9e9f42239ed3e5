"""Accuracy and latency of each version, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from dashboards.formats import NOTHING, PERCENT, counted, decimal, milliseconds, moment, number, share
from dashboards.lines import Line, Point, line_chart, percentile_range
from dashboards.markup import Content, Html, anchor, tag
from dashboards.parts import card, long_table, natural, row, swatch
from dashboards.words import Row, name

PERCENTILES = ("p50", "p95", "p99")
MOST_LINES = 6
Windows = Mapping[str, Sequence[tuple[datetime, datetime, Row]]]
"""Per version its windows in order, each with its start, its end and what was measured in it."""


def accuracy(findings: Sequence[Row], task: str, colours: Mapping[str, int]) -> Html:
    """Accuracy over windows (mean absolute error for regression), its interval, and the share of rows with a label."""
    windows = _by_version(findings)
    classification = task == "classification"
    title = "Accuracy" if classification else "Mean absolute error"
    if not windows:
        return card(title, tag("p", "No window has been judged by its labels yet.", class_="quiet"))
    text: Callable[[float], str] = _percent if classification else decimal
    last = ", ".join(f"version {v}: {_text_of(w[-1][2], text)}" for v, w in windows.items())
    chart = line_chart(
        _lines(windows, colours),
        f"{title} of each version, window by window. In the last: {last}.",
        text,
        1.0 if classification else math.inf,
    )
    legend = [
        tag("li", swatch(colours[v]), "version ", name(v), ": ", _accuracy_words(w[-1][2], text))
        for v, w in windows.items()
    ]
    better = "higher is better" if classification else "lower is better"
    return card([title, " ", tag("small", better)], chart, tag("ul", legend, class_="legend"))


def latency(key: str, findings: Sequence[Row], colours: Mapping[str, int]) -> Html:
    """The 95th percentile over windows, and the percentiles of the newest window of each version."""
    windows = _by_version(findings)
    if not windows:
        return card("Latency", tag("p", "No window has latencies yet.", class_="quiet"))
    last = {v: w[-1][2] for v, w in windows.items()}
    words = ", ".join(f"version {v}: {milliseconds(f.get('value'))}" for v, f in last.items())
    description = f"95th percentile of latency of each version, window by window. In the last: {words}."
    known = [x for f in last.values() for x in _percentiles(f) if x]
    ends = (min(known), max(known)) if known else (1.0, 1.0)
    head: Sequence[Content] = ("Version", ("p50",), ("p95",), ("p99",), "Range")
    rows = [
        row(
            [swatch(colours[v]), name(v, 24)],
            *((milliseconds(x),) for x in _percentiles(f)),
            _range_picture(f, ends, colours[v]),
        )
        for v, f in last.items()
    ]
    return card(
        ["Latency ", tag("small", "95th percentile")],
        line_chart(_lines(windows, colours), description, milliseconds),
        long_table(anchor("latency", key), "Latency in the last window of each version", head, rows, MOST_LINES),
    )


def _text_of(finding: Row, text: Callable[[float], str]) -> str:
    """A finding's value, or a dash."""
    value = number(finding.get("value"))
    return NOTHING if value is None else text(value)


def _percent(value: float) -> str:
    return f"{100 * value:.4g}{PERCENT}"


def _accuracy_words(finding: Row, text: Callable[[float], str]) -> Content:
    coverage = number((finding.get("effects") or {}).get("label_coverage"))
    if number(finding.get("value")) is None:
        return str(finding.get("message") or "not known")
    low, high = number(finding.get("low")), number(finding.get("high"))
    interval = "" if low is None or high is None else f" ({text(low)} to {text(high)})"
    labelled = "" if coverage is None else f", {share(coverage)} labelled"
    words = f"{interval}{labelled}, {counted(finding.get('n'), 'label')}"
    return [tag("b", _text_of(finding, text)), tag("span", words, class_="quiet")]


def _by_version(findings: Sequence[Row]) -> dict[str, list[tuple[datetime, datetime, Row]]]:
    """The windows of the shortest length of the versions that were judged last."""
    dated = [(moment(f.get("start")), moment(f.get("end")), f) for f in findings if f.get("version")]
    known = [(start, end, f) for start, end, f in dated if start is not None and end is not None and start < end]
    shortest = min((end - start for start, end, _ in known), default=None)
    versions: dict[str, list[tuple[datetime, datetime, Row]]] = {}
    for start, end, finding in sorted(known, key=lambda w: w[:2]):
        if end - start == shortest:
            versions.setdefault(str(finding["version"]), []).append((start, end, finding))
    latest = sorted(versions, key=lambda v: (versions[v][-1][1], natural(v)), reverse=True)[:MOST_LINES]
    return {v: versions[v] for v in sorted(latest, key=natural)}


def _lines(windows: Windows, colours: Mapping[str, int]) -> list[Line]:
    return [Line(v, colours[v], [_point(*window) for window in w]) for v, w in windows.items()]


def _point(start: datetime, end: datetime, finding: Row) -> Point:
    measured = finding.get("status") == "measured"
    value, low, high = (number(finding.get(key)) if measured else None for key in ("value", "low", "high"))
    return Point(start, end, value, low, high, number((finding.get("effects") or {}).get("label_coverage")))


def _percentiles(finding: Row) -> list[float | None]:
    effects = finding.get("effects") or {}
    return [number(effects.get(name)) for name in PERCENTILES]


def _range_picture(finding: Row, ends: tuple[float, float], colour: int) -> Content:
    values = [x for x in _percentiles(finding) if x is not None and x > 0]
    if len(values) < len(PERCENTILES):
        return NOTHING
    words = ", ".join(f"{p} {milliseconds(x)}" for p, x in zip(PERCENTILES, values, strict=True))
    return percentile_range(values, *ends, colour, words)
