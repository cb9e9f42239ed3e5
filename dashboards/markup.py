"""HTML and SVG as text. What is not markup already is escaped, so that no name from a log can become markup."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, overrides of the writing direction, and lone surrogates, which have no UTF-8 form."""
VOID = frozenset({"br", "link", "meta"})


class Html(str):
    """Text that is markup already and is not escaped again. Only ``tag`` and the page's own files make it."""

    __slots__ = ()


Value: TypeAlias = str | float | bool | None
Content: TypeAlias = "str | Iterable[Content] | None"


def tag(element: str, /, *content: Content, **attributes: Value) -> Html:
    """An element with its content and attributes.

    An attribute that is None or False is left out; True gives it without a value. ``class_`` is written ``class``,
    ``aria_label`` is written ``aria-label``.

    >>> tag("p", "1 < 2", class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2</p>'
    >>> tag("svg", [tag("title", '"a"'), None], role="img", width=12.0)
    '<svg role="img" width="12"><title>&quot;a&quot;</title></svg>'
    """
    opening = f"<{element}{''.join(_attribute(k, v) for k, v in attributes.items())}>"
    return Html(opening if element in VOID else f"{opening}{join(content)}</{element}>")


def join(content: Content) -> Html:
    """Pieces after each other, each escaped unless it is markup.

    >>> join(["a & b ", tag("b", "c")])
    'a &amp; b <b>c</b>'
    """
    if content is None:
        return Html()
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(UNPRINTABLE.sub("\ufffd", content)))
    return Html("".join(join(piece) for piece in content))


def anchor(*names: Any) -> str:
    """An id for an element about these names: the same whenever the page is made again.

    >>> anchor("fleet", "credit") == anchor("fleet", "credit") != anchor("fleet", "fraud")
    True
    """
    return "a" + hashlib.sha256("\x1f".join(map(str, names)).encode("utf-8", "replace")).hexdigest()[:12]


def _attribute(name: str, value: Value) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{join(str(text))}"'
