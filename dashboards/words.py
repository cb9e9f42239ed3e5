"""Names, places and changes in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dashboards.formats import decimal, number, share_change, shortened
from dashboards.markup import Html, anchor, join, tag

Row = Mapping[str, Any]
MOST_NAMED = 5
LONGEST_NAME = 48
UNKNOWN = "?"
USUAL_ENVIRONMENT = "production"
STATES = {"missing": "missing", "not_finite": "NaN or ∞", "wrong_kind": "wrong kind", "new_level": "new value"}
"""Cells that are neither a level nor a range, and what people call them."""
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
NUMBER = re.compile(_NUMBER)
_ONE_RANGE = rf"(?:(?:below|above) {_NUMBER}|{_NUMBER} to {_NUMBER})"
RANGE = re.compile(rf"{_ONE_RANGE}(?: … {_ONE_RANGE})?")
MERGED = re.compile(rf"({_NUMBER}) to .* to ({_NUMBER})")
CHANGES = {
    "missing": "missing",
    "unusable": "not usable",
    "unseen": "never seen before",
    "scale": "the spread changed",
    "level": "the mix of values changed",
    "shape": "the shape changed",
    "schema": "another kind of column",
    "undeclared": "nobody declared it",
    "vanished": "vanished",
    "kind": "another kind of value",
    "stuck": "stuck at one value",
    "units": "in another unit",
}
"""What each component of a change is called."""


def listed(value: Any) -> Sequence[Any]:
    """The value if it is a list, else nothing."""
    return value if isinstance(value, list | tuple) else ()


def text(value: Any) -> str:
    """The value as text, with a mark where there is none."""
    return UNKNOWN if value in (None, "") else str(value)


def name(value: Any, most: int = LONGEST_NAME) -> Html:
    """A name from the logs: set apart from the text around it, shortened where it is very long."""
    whole = text(value)
    short = shortened(whole, most)
    return tag("bdi", short, class_="name", title=None if short == whole else whole)


def feature_name(value: Any) -> str:
    """A feature as people call it; those that begin with ``@`` are the model's outputs.

    >>> feature_name("@score"), feature_name("income")
    ('score', 'income')
    """
    return text(value).removeprefix("@")


def feature_names(features: Any, most: int = MOST_NAMED) -> Html:
    """Features in one line, in the order given.

    >>> feature_names(["a", "@score", "c"], most=2)
    '<bdi class="name">a</bdi>, <bdi class="name">score</bdi> and 1 more'
    """
    names = [name(feature_name(f)) for f in listed(features)]
    if len(names) > most:
        return join([separated(names[:most]), f" and {len(names) - most} more"])
    return join([separated(names[:-1]), " and " if len(names) > 1 else "", names[-1:]])


def cause_words(cause: Row) -> Html:
    """What changed of a feature and where, to stand behind its name; empty where neither is known.

    >>> cause_words({"component": "missing", "where": "server s3"})
    'missing, only <bdi class="name">server s3</bdi>'
    """
    component = str(cause.get("component") or "")
    what = "values moved" if component == "location" else CHANGES.get(component, component)
    where = join(["only ", name(cause["where"])]) if cause.get("where") else Html()
    return separated([join([what]), where])


def only_where(row: Row) -> Html:
    """The one place that explains all of a row's causes, unless the row is about that place; else empty.

    >>> only_where({"causes": [{"feature": "age", "where": "server s3"}]})
    'only <bdi class="name">server s3</bdi>'
    """
    places = {str(cause.get("where") or "") for cause in listed(row.get("causes"))}
    own = {f"{key} {row.get(key)}" for key in ("version", "server", "segment")}
    return join(["only ", name(places.pop())]) if len(places) == 1 and places - own - {""} else Html()


def separated(parts: Iterable[Html], between: str = ", ") -> Html:
    """The parts that are not empty, with something between them."""
    return Html(between.join(part for part in parts if part))


def place(row: Row) -> Html:
    """The version, server and segment that a row is about; empty where it is about all of them.

    >>> place({"version": "2", "server": "s3"})
    'version <bdi class="name">2</bdi>, server <bdi class="name">s3</bdi>'
    """
    return separated(join([f"{key} ", name(row[key])]) for key in ("version", "server", "segment") if row.get(key))


def model_of(row: Row) -> Html:
    """The model, with its environment unless that is the usual one."""
    environment = row.get("environment") or USUAL_ENVIRONMENT
    return join([name(row.get("model")), [] if environment == USUAL_ENVIRONMENT else [" in ", name(environment)]])


def model_key(row: Row) -> tuple[str, str]:
    """What tells a model from all others."""
    return str(row.get("environment") or USUAL_ENVIRONMENT), str(row.get("model"))


def model_id(row: Row) -> str:
    """The id of the section about the row's model."""
    return anchor("model", *model_key(row))


def version_of(row: Row) -> str:
    """The version that a row is about, with a mark where it has none."""
    return text(row.get("version"))


def model_and_place(row: Row) -> Html:
    """The model and where in it."""
    return separated([model_of(row) if row.get("model") else Html(), place(row)])


def cell_name(label: str) -> str:
    """The label of a cell as people read it; the numbers of a range to three digits where that tells its ends apart.

    >>> cell_name("not_finite"), cell_name("above 21463.2"), cell_name("67.2204 to 90.4925")
    ('NaN or ∞', 'above 21,463', '67.2 to 90.5')
    >>> cell_name("1996.1 to 1996.4"), cell_name("0.10 to 0.11 … 0.12 to 0.13"), cell_name("90210")
    ('1996.1 to 1996.4', '0.1 to 0.13', '90210')
    """
    if not RANGE.fullmatch(label):
        return STATES.get(label, label)
    merged = MERGED.fullmatch(label)
    label = f"{merged[1]} to {merged[2]}" if merged else label
    short = NUMBER.sub(lambda number: decimal(float(number[0])), label)
    ends = short.split(" to ")
    return label if len(ends) == 2 and ends[0] == ends[1] else short


def change_word(finding: Row) -> str:
    """What kind of change it is."""
    component = str(finding.get("component") or "")
    if component == "location":
        return _moved(finding.get("effects") or {})
    return CHANGES.get(component, component or "no change")


def change_phrase(finding: Row) -> str:
    r"""What changed and by how much, to stand behind the name of the feature.

    >>> change_phrase({"component": "location", "effects": {"location_auc": 0.1, "wasserstein_sd": 0.3}})
    'values moved up, by 0.3 sd'
    >>> cells = [{"cell": "missing", "baseline_share": 0.0, "share": 0.14}]
    >>> change_phrase({"component": "missing", "contributions": cells})
    'missing 0\u202f% → 14\u202f%'
    """
    own = _own_cells(finding)
    if own:
        before, now = (sum(number(c.get(key)) or 0.0 for c in own) for key in ("baseline_share", "share"))
        return f"{change_word(finding)} {share_change(before, now)}"
    biggest = biggest_difference(finding)
    if biggest is None or finding.get("component") == "location":
        return change_word(finding)
    cell, shares = shortened(biggest[0], LONGEST_NAME), biggest[1]
    return (
        f"{cell} {shares}"
        if finding.get("component") == "level"
        else f"{change_word(finding)}, most in {cell}: {shares}"
    )


def biggest_difference(finding: Row) -> tuple[str, str] | None:
    """The cell that tells most of the change, and its shares in the baseline and now."""
    cells = [*_own_cells(finding), *listed(finding.get("contributions"))]
    if not cells:
        return None
    return cell_name(text(cells[0].get("cell"))), share_change(cells[0].get("baseline_share"), cells[0].get("share"))


def _own_cells(finding: Row) -> list[Row]:
    """The cells that the named component is about."""
    component = str(finding.get("component") or "")
    return [c for c in listed(finding.get("contributions")) if _belongs(str(c.get("cell")), component)]


def _belongs(cell: str, component: str) -> bool:
    match component:
        case "missing" | "vanished":
            return cell == "missing"
        case "kind":
            return cell == "wrong_kind"
        case "unusable":
            return cell in {"not_finite", "wrong_kind"}
        case "unseen":
            return cell in {"new_level", "between"} or cell.startswith(("below ", "above "))
    return False


def _moved(effects: Row) -> str:
    auc, distance = number(effects.get("location_auc")), number(effects.get("wasserstein_sd"))
    way = "" if not auc else " up" if auc > 0 else " down"
    return f"values moved{way}" + ("" if distance is None else f", by {decimal(round(distance, 2))} sd")
