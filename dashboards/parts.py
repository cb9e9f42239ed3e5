"""Parts that several sections of the page are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from dashboards.formats import NOTHING, ago, counted, moment, near
from dashboards.markup import Content, Html, join, tag

MOST_ROWS = 300


def natural(text: Any) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts 2 before 10.

    >>> sorted(["v10", "v2", "v1b"], key=natural)
    ['v1b', 'v2', 'v10']
    """
    pieces = re.findall(r"[0-9]{1,18}|[^0-9]+", str(text))
    return tuple((0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in pieces)


def folded(key: str, summary: Content, content: Content) -> Html:
    """Something to be opened on demand. The key keeps it open when the page is brought up to date."""
    return tag("details", tag("summary", summary), content, id=key)


def card(title: Content, *content: Content, level: str = "h3", class_: str = "card") -> Html:
    """A box with a title."""
    return tag("section", tag(level, title), content, class_=class_)


def row(first: Content, *others: Content, class_: str | None = None) -> Html:
    """A row of a table: its head and its cells. A cell given as a tuple is a number and stands to the right."""
    cells = [tag("td", c, class_="number" if isinstance(c, tuple) else None) for c in others]
    return tag("tr", tag("th", first, scope="row"), cells, class_=class_)


def long_table(key: str, caption: str, head: Sequence[Content], rows: Sequence[Html], shown: int) -> Html:
    """A table that scrolls sideways where it is too wide. After so many rows the rest is folded away."""
    first, rest = rows[:shown], rows[shown:]
    hidden = len(rest) - MOST_ROWS
    more = folded(
        key,
        f"{counted(len(rest), 'more row')}",
        [
            _table(f"{key}-rest", f"{caption}, the rest", head, rest[:MOST_ROWS]),
            tag("p", f"{counted(hidden, 'row')} not shown here; the API has them all.", class_="quiet")
            if hidden > 0
            else None,
        ],
    )
    return join([_table(f"{key}-first", caption, head, first) if first else None, more if rest else None])


def when(value: Any, now: Any) -> Html:
    """A time of day, or with its date unless that is today."""
    time = moment(value)
    if time is None:
        return join(str(value or NOTHING))
    return tag("time", near(time, moment(now)), datetime=time.isoformat())


def age(value: Any, now: Any) -> Html:
    """How long ago a time was."""
    time, present = moment(value), moment(now)
    return when(value, now) if time is None or present is None else join(ago(time, present))


def when_and_age(value: Any, now: Any) -> Html:
    """A time, and how long ago it was."""
    known = moment(value) is not None and moment(now) is not None
    return join([when(value, now), [", ", age(value, now)] if known else None])


def swatch(colour: int) -> Html:
    """A dot in the colour of a version."""
    return tag("span", class_=f"swatch v{colour}", aria_hidden="true")


def colours(versions: Iterable[Any]) -> dict[str, int]:
    """The number of the colour of each version, the same in all pictures of a model.

    >>> colours(["10", "2", "2"])
    {'2': 0, '10': 1}
    """
    ordered = sorted({str(v) for v in versions}, key=natural)
    return {version: i % COLOURS for i, version in enumerate(ordered)}


COLOURS = 6


def _table(key: str, caption: str, head: Sequence[Content], rows: Sequence[Html]) -> Html:
    columns = tag("tr", [tag("th", h, scope="col", class_="number" if isinstance(h, tuple) else None) for h in head])
    table = tag("table", tag("caption", caption, class_="unseen"), tag("thead", columns), tag("tbody", rows))
    return tag("div", table, class_="scroll", id=key, role="region", aria_label=caption, tabindex="0")
