"""The page as a document: well-formed, accessible, complete, and deaf to markup in names."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import render_page

SAMPLE = Path(__file__).with_name("overview.json").read_text("utf-8")
VOID = {"meta", "link", "br"}
HOSTILE = "\"'></title></script></style></svg><img src=x onerror=alert(1)><script>alert(2)</script>"
BARE = {"model": "bare", "environment": "production"}


class Page(HTMLParser):
    """Reads a page and fails where an element is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.pieces.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).replace("\u202f", " ").split())


def sample() -> dict[str, Any]:
    """An overview with everything that a page can show: two versions on six servers, an upstream change, a rollback."""
    overview: dict[str, Any] = json.loads(SAMPLE)
    return overview


def read(overview: dict[str, Any]) -> Page:
    return Page(render_page(overview))


def model(**parts: Any) -> dict[str, Any]:
    return {"now": "2026-01-01T12:34:56+00:00", "models": [BARE | parts]}


def finding(feature: str, component: str, severity: float, **more: Any) -> dict[str, Any]:
    """One finding of the newest window."""
    return {
        "id": "f" * 24,
        "environment": "production",
        "model": "credit",
        "start": "2026-01-01T11:00:00+00:00",
        "end": "2026-01-01T12:00:00+00:00",
        "detector": "drift",
        "feature": feature,
        "baseline": "reference:train.parquet@1a2b3c4d",
        "status": "measured",
        "value": 0.3182,
        "low": None,
        "high": None,
        "p_value": 3.21e-12,
        "n": 12_345,
        "n_baseline": 30_000,
        "component": component,
        "severity": severity,
        "effects": {"psi": 0.2},
        "contributions": [],
        "message": "",
        **more,
    }


def cell(name: str, before: float, now: float) -> dict[str, Any]:
    """One cell of a finding that differs."""
    return {"cell": name, "baseline_share": before, "share": now}


def place(
    server: str, version: str, first: str, last: str, *, serving: bool, rows: int, announced: bool | None = True
) -> dict[str, Any]:
    """One version on one server."""
    return {
        "server": server,
        "version": version,
        "rows": rows,
        "requests": float(rows),
        "first_seen": f"2026-01-01T{first}:00+00:00",
        "last_seen": f"2026-01-01T{last}:00+00:00",
        "serving": serving,
        "announced": announced,
    }


def everywhere(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with every leaf changed."""
    if isinstance(value, dict):
        return {key: everywhere(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [everywhere(one, change) for one in value]
    return change(value)


def test_a_full_page_is_well_formed_and_its_ids_are_unique() -> None:
    page = read(sample())
    ids = [str(a["id"]) for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for a in page.named("a")}
    assert targets
    assert targets <= set(ids)


def test_tables_name_their_heads_and_pictures_say_what_they_show() -> None:
    page = read(sample())
    assert {a.get("scope") for a in page.named("th")} == {"col", "row"}
    pictures = [a for a in page.named("svg") if a.get("aria-hidden") != "true"]
    assert len(pictures) >= 9
    assert all(a.get("role") == "img" and a.get("aria-label") for a in pictures)


def test_nothing_is_loaded_from_elsewhere_and_no_style_or_handler_is_inline() -> None:
    page = read(sample())
    for _, attributes in page.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith(("#", "data:image/svg+xml,"))


def test_the_page_tells_what_fires_who_serves_and_what_changed() -> None:
    text = read(sample()).text
    assert "2 alerts are firing" in text
    assert "Version 2 of credit is 6.1 percentage points less accurate than version 1." in text
    assert "Drift in credit: income, plan, age, score changed against what is usual." in text.replace(" and", ",")
    assert "1 notice" in text
    assert "Server scorer-3 differs from the others that run version 2 of credit: monthly_debt." in text
    assert "Distance0.318" in text
    assert "income: missing 0 % → 14 %" in text
    assert "age: values moved up, by 0.38 sd" in text
    assert "tenure: no change that matters" in text
    assert "version 2 on 3 of 6 servers" in text.replace("version 2on", "version 2 on")
    assert "4 of 60 failed (6.7 %)" in text
    assert "1,234,567 predictions" in text
    assert "1 Jan 2026, 12:34:56 UTC" in text


def test_a_finding_by_history_says_what_it_is_held_against() -> None:
    text = read(model(latest=[finding("income", "location", 3.0, baseline="history")])).text
    assert "against the same hours before" in text


def test_findings_show_their_numbers() -> None:
    findings = [
        finding("income", "missing", 14.2, version="2", server="s3", contributions=[cell("missing", 0.0, 0.14)]),
        finding("age", "", 0.0, status="not_enough_data", p_value=None, value=None, message="41 rows; 200 are needed"),
    ]
    text = read(model(latest=findings)).text
    assert "1 of 2 comparisons differs by more than the tolerance. Window 11:00 to 12:00 UTC." in text
    assert "version 2, server s3" in text
    assert "against the reference" in text
    for number in ("14.2", "0.318", "3.2·10⁻¹²", "12,345"):
        assert number in text
    assert "41 rows; 200 are needed" in text


def test_small_changes_are_called_small() -> None:
    text = read(model(latest=[finding(f"f{i}", "level", 0.4) for i in range(50)])).text
    assert "Nothing differs by more than its tolerance in 50 comparisons." in text
    assert "47 more rows" in text


def test_outputs_of_the_model_lose_their_mark() -> None:
    overview = model(latest=[finding("@prediction", "level", 2.0), finding("@score", "shape", 1.5)])
    overview["firing"] = [{"model": "bare", "watch": "drift", "features": ["@score"]}]
    page = read(overview)
    assert "Drift in bare: score changed against what is usual." in page.text
    assert "@" not in page.text.replace("train.parquet@", "")


def test_an_alarm_says_of_each_feature_what_changed_where_and_since_when() -> None:
    overview = model()
    causes = [
        {"feature": "age", "component": "missing", "where": "server s3", "since": "2026-03-01T09:00:00+00:00"},
        {"feature": "income", "component": "units", "where": "", "since": "2026-03-01T10:00:00+00:00"},
    ]
    overview["firing"] = [{"model": "bare", "watch": "drift", "features": ["age", "income"], "causes": causes}]
    text = read(overview).text
    assert "age: missing, only server s3, in windows from " in text
    assert "income: in another unit, in windows from " in text


def test_without_alerts_the_page_is_calm() -> None:
    calm, alarmed = render_page(sample() | {"firing": []}), render_page(sample())
    assert "Nothing is firing." in calm
    assert "off-course" not in str(Page(calm).named("svg")[0]["class"])
    assert "<title>Telltale</title>" in calm
    assert "off-course" in str(Page(alarmed).named("svg")[0]["class"])
    assert "<title>2 firing · Telltale</title>" in alarmed


@pytest.mark.parametrize(
    ("overview", "words"),
    [
        ({}, "No model is known yet."),
        ({"models": [], "servers": [], "timeline": [], "firing": []}, "No server is known yet."),
        (dict.fromkeys(("now", "rows", "firing", "timeline", "servers", "models")), "time not known"),
        (model(), "No traffic yet"),
        (model(fleet=[place("s1", "1", "00:00", "01:00", serving=True, rows=1)]), "No window has been compared yet."),
        (model(latest=[finding("x", "level", 2.0)]), "No labels"),
        (model(pictures=[finding("x", "level", 2.0)], latest=[finding("x", "level", 2.0)]), "No rows."),
        ({"firing": [{}], "timeline": [{}], "servers": [{}], "models": [{}]}, "1 alert is firing"),
        ({"models": [{"fleet": [{}], "accuracy": [{}], "latency": [{}], "latest": [{}], "pictures": [{}]}]}, "gone"),
    ],
)
def test_what_is_not_there_is_said(overview: dict[str, Any], words: str) -> None:
    text = read(overview).text
    assert words.replace("No labels", "No window has been judged by its labels yet.") in text
    assert "None" not in text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0, -1.0, 1e308, 10**400, True])
def test_any_number_may_be_unusable(value: Any) -> None:
    def change(leaf: Any) -> Any:
        return leaf if isinstance(leaf, str) else value

    text = read(everywhere(sample(), change)).text
    assert "nan" not in text
    assert "inf" not in text
    assert "None" not in text


def test_every_text_may_be_missing() -> None:
    text = read(everywhere(sample(), lambda leaf: None if isinstance(leaf, str) else leaf)).text
    assert "None" not in text


def test_no_text_becomes_markup() -> None:
    plain = read(sample())
    overview = everywhere(sample(), lambda leaf: HOSTILE if isinstance(leaf, str) else leaf)
    overview["timeline"].append({HOSTILE: HOSTILE})
    overview["rows"][HOSTILE] = 1
    page = read(overview)
    assert {name for name, _ in page.elements} <= {name for name, _ in plain.elements}
    assert len(page.named("script")) == len(page.named("style")) == 1


def test_names_in_pictures_do_not_become_markup() -> None:
    """Times and states stay as they are, so that all charts are drawn; all names are hostile."""
    overview = sample()
    hostile = {"feature": HOSTILE, "version": HOSTILE, "server": HOSTILE}
    for one in overview["models"]:
        for part in ("fleet", "accuracy", "latency", "latest", "pictures"):
            one[part] = [row | hostile for row in one[part]]
        for picture in one["pictures"]:
            picture["labels"] = [HOSTILE for _ in picture["labels"]]
    page = read(overview)
    assert {name for name, _ in page.elements} <= {name for name, _ in read(sample()).elements}
    assert len(page.named("script")) == 1
    assert len(page.named("title")) > 10
    assert page.text.count("onerror=alert(1)") > 20
    assert any("onerror=alert(1)" in str(a.get("aria-label")) for a in page.named("svg"))


def test_characters_that_have_no_form_or_turn_the_text_around_are_replaced() -> None:
    overview = model(latest=[finding("a\x00b\u202ec\ud800d", "level", 2.0)])
    page = render_page(overview)
    assert "a\ufffdb\ufffdc\ufffdd" in page
    page.encode("utf-8")


def test_long_names_are_shortened_and_kept_whole_beside() -> None:
    long = "monthly_income_" * 40
    page = read(model(latest=[finding(long, "level", 2.0)]))
    assert long not in page.text
    assert any(a.get("title") == long for a in page.named("bdi"))


def test_a_large_fleet_stays_readable() -> None:
    fleet = [
        place(f"s{i}", "1", "00:00", "12:33", serving=True, rows=5, announced=i not in (150, 151)) for i in range(200)
    ]
    overview = model(fleet=fleet)
    overview["servers"] = [{"server": f"s{i}", "probes": 60, "failures": 60 * (i == 77)} for i in range(200)]
    page = read(overview)
    assert "on 200 of 200 servers" in page.text
    assert "not announced on 2" in page.text
    assert page.text.count("188 more rows") == 2
    grid, servers = page.text.split("Servers and their health checks")[:2]
    assert grid.index("s150") < grid.index("s0")
    assert servers.index("s77") < servers.index("s0")
    assert "60 of 60 failed (100 %)" in servers


def test_many_versions_are_cut_to_those_that_matter() -> None:
    fleet = [place("s1", str(v), f"{v:02d}:00", f"{v:02d}:59", serving=v == 3, rows=1) for v in range(1, 24)]
    text = read(model(fleet=fleet)).text
    assert text.index("version 3on 1 of 1 server") < text.index("version 23does not serve")
    assert "version 17does" in text
    assert "version 16does" not in text
    assert "15 earlier versions not shown here" in text


def test_a_notice_is_no_alert() -> None:
    overview = sample() | {"firing": [{"model": "credit", "watch": "drift", "severity": "notice"}]}
    page = read(overview)
    assert "Nothing is firing." in page.text
    assert "1 notice" in page.text
    assert "off-course" not in str(page.named("svg")[0]["class"])


def test_many_alerts_are_all_there() -> None:
    firing = [{"model": f"m{i}", "policy": "p", "state": "firing"} for i in range(25)]
    text = read({"firing": firing}).text
    assert "25 alerts are firing" in text
    assert "16 more" in text
    assert all(f"m{i}" in text for i in range(25))


def test_a_regression_shows_its_error() -> None:
    overview = sample()
    overview["models"][0]["task"] = "regression"
    text = read(overview).text
    assert "Mean absolute error lower is better" in text
    assert "Version 2 of credit has a mean loss 0.0613 above that of version 1." in text


def test_accuracy_says_how_sure_it_is_and_how_much_is_labelled() -> None:
    judged = {
        **finding("", "", 0.0, value=0.8437, low=0.83, high=0.85, n=1200, effects={"label_coverage": 0.5}),
        "version": "2",
        "detector": "accuracy",
    }
    scarce = judged | {"version": "3", "status": "not_enough_data", "value": None, "message": "3 of 9 have a label"}
    text = read(model(task="classification", accuracy=[judged, scarce])).text
    assert "version 2: 84.37 % (83 % to 85 %), 50 % labelled, 1,200 labels" in text
    assert "version 3: 3 of 9 have a label" in text


def test_the_overview_is_not_changed() -> None:
    overview = sample()
    before = copy.deepcopy(overview)
    render_page(overview)
    assert overview == before


def test_the_same_overview_gives_the_same_page() -> None:
    assert render_page(sample()) == render_page(sample())
