"""The parts that all pictures share. Colours come from classes in ``page.css``."""

from __future__ import annotations

import math

from dashboards.formats import shortened
from dashboards.markup import Content, Html, tag


def drawing(width: float, height: float, description: str, *content: Content) -> Html:
    """A picture that fills its place, with what it shows in words for those who do not see it."""
    return tag("svg", *content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=description)


def label(text: str, x: float, y: float, anchor: str = "start", *, kind: str | None = None, most: int = 24) -> Html:
    """One line of text, shortened to at most so many characters. ``anchor``: start, middle or end."""
    return tag("text", shortened(text, most), class_=kind, x=x, y=y, text_anchor=anchor)


def level_line(left: float, right: float, y: float, kind: str = "grid") -> Html:
    """A horizontal line."""
    return tag("line", class_=kind, x1=left, x2=right, y1=y, y2=y)


def nice_step(span: float, most: int) -> float:
    """The least of 1, 2, 5 times a power of ten that divides a span into at most so many steps.

    >>> nice_step(0.37, 4), nice_step(90, 4)
    (0.1, 50.0)
    """
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
