"""What differs in the newest window: a table, and pictures of the worst features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboards.formats import NOTHING, count, counted, decimal, moment, near, number, p_value
from dashboards.markup import Content, Html, anchor, join, tag
from dashboards.parts import folded, long_table, row
from dashboards.shares import cells_of, comparison
from dashboards.words import Row, biggest_difference, change_phrase, change_word, feature_name, name, place

LONGEST_FEATURE = 28
LEAST_SHOWN, MOST_SHOWN = 3, 12
HEAD: Sequence[Content] = (
    "Feature",
    "What changed",
    "Where",
    "Most in",
    ("Severity",),
    ("Distance",),
    ("p",),
    ("Rows",),
)


BASELINES = {"history": "the same hours before"}
"""What a picture's grey side is, where it is no reference."""
STATISTICS = (
    ("psi", "PSI"),
    ("kolmogorov_smirnov", "KS"),
    ("wasserstein_sd", "Wasserstein (sd)"),
    ("jensen_shannon", "Jensen-Shannon"),
    ("hellinger", "Hellinger"),
    ("total_variation", "TVD"),
    ("chi_square", "chi-square"),
    ("g", "G"),
)


def findings_table(key: str, findings: Sequence[Row], now: Any) -> Html:
    """The findings in the order given; what is too small to matter is folded away."""
    if not findings:
        return tag("p", "No window has been compared yet.", class_="quiet")
    serious = sum(matters(f) for f in findings)
    window = findings[0]
    shown = min(MOST_SHOWN, max(LEAST_SHOWN, serious))
    return join(
        [
            tag("p", _summary(serious, len(findings)), " ", _span(window, now), class_="summary"),
            long_table(anchor("findings", key), "What differs, worst first", HEAD, [_row(f) for f in findings], shown),
            tag(
                "p",
                "Severity is the change over its tolerance, at the cautious end of its interval: below 1 is too small "
                "to matter. Distance is Jensen-Shannon's, 0 to 1.",
                class_="quiet",
            ),
        ]
    )


def pictures(key: str, found: Sequence[Row]) -> Html:
    """One picture per feature: the shares of its cells, before and now, and the statistics that people know by name."""
    if not found:
        return Html()
    serious = [_picture(p) for p in found if matters(p)]
    others = [_picture(p) for p in found if not matters(p)]
    words = (("ref", " or ".join(dict.fromkeys(map(_baseline, found)))), ("now", "now"))
    legend = [tag("span", tag("span", class_=f"patch {kind}"), word) for kind, word in words]
    title = tag("h3", "Worst features ", tag("small", "share of rows per cell"), tag("small", legend, class_="key"))
    more = f"{counted(len(others), 'feature')} without a change that matters"
    return tag(
        "div",
        title,
        tag("div", serious, class_="pictures") if serious else None,
        folded(anchor("pictures", key), more, tag("div", others, class_="pictures")) if others else None,
        class_="worst",
    )


def matters(finding: Row) -> bool:
    """Whether a finding is tested and not too small to matter."""
    tested = finding.get("status") == "measured" and finding.get("p_value") is not None
    return tested and (number(finding.get("severity")) or 0.0) >= 1


def _summary(serious: int, all_of_them: int) -> str:
    if not serious:
        return f"Nothing differs by more than its tolerance in {counted(all_of_them, 'comparison')}."
    verb = "differs" if serious == 1 else "differ"
    return f"{count(serious)} of {counted(all_of_them, 'comparison')} {verb} by more than the tolerance."


def _span(window: Row, now: Any) -> Html:
    start, end = moment(window.get("start")), moment(window.get("end"))
    if start is None or end is None:
        return Html()
    return tag("span", f"Window {near(start, moment(now))} to {near(end, start)} UTC.", class_="quiet")


def _row(finding: Row) -> Html:
    feature = name(feature_name(finding.get("feature")), LONGEST_FEATURE)
    if finding.get("status") != "measured":
        reason = str(finding.get("message") or finding.get("status") or "not measured").replace("_", " ")
        words: Content = reason
    else:
        untested = str(finding.get("message") or "") if finding.get("p_value") is None else ""
        why = tag("span", untested, class_="quiet") if untested else None
        words = tag("span", tag("span", change_word(finding)), why, class_="stack") if why else change_word(finding)
    biggest = biggest_difference(finding)
    most: Content = (
        NOTHING if biggest is None else [name(biggest[0], 32), ": ", tag("span", biggest[1], class_="nowrap")]
    )
    severity = tag("b", decimal(finding.get("severity"))) if matters(finding) else decimal(finding.get("severity"))
    return row(
        feature,
        words,
        tag(
            "span",
            tag("span", place(finding) or "all servers"),
            tag("span", _against(finding), class_="quiet"),
            class_="stack",
        ),
        most,
        (severity,),
        (decimal(finding.get("value")),),
        (p_value(finding.get("p_value")),),
        (count(finding.get("n")),),
        class_="matters" if matters(finding) else "minor",
    )


def _against(finding: Row) -> Content:
    kind, _, label = str(finding.get("baseline") or "").partition(":")
    match kind:
        case "fleet":
            return "against the other servers"
        case "history":
            return "against the same hours before"
        case "reference":
            return tag("span", "against the reference", title=label)
        case "version":
            return ["against version ", name(label)]
    return None


def _baseline(picture: Row) -> str:
    """What a picture is held against, in words."""
    return BASELINES.get(str(picture.get("baseline") or ""), "the reference")


def _picture(picture: Row) -> Html:
    feature = feature_name(picture.get("feature"))
    phrase = change_phrase(picture) if matters(picture) else "no change that matters"
    cells = cells_of(picture)
    where = place(picture)
    baseline = _baseline(picture)
    rows = f"{count(picture.get('n'))} rows now, {count(picture.get('n_baseline'))} in {baseline}"
    found = picture.get("statistics") or {}
    statistics = " · ".join(f"{word} {decimal(found[key])}" for key, word in STATISTICS if key in found)
    return tag(
        "figure",
        tag("figcaption", tag("b", name(feature)), f": {phrase}"),
        comparison(cells, f"{feature}: {phrase}. Before: {baseline}.")
        if cells
        else tag("p", "No rows.", class_="quiet"),
        tag("p", [where, " · "] if where else None, rows, class_="quiet"),
        tag("p", statistics, class_="quiet") if statistics else None,
        class_="card matters" if matters(picture) else "card",
    )
