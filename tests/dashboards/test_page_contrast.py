"""The colours of the page stand out for people who see less well: WCAG 2.1, success criteria 1.4.3 and 1.4.11."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import product

import pytest

CSS = files("dashboards").joinpath("page.css").read_text("utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in CSS.split("@media", 2)[:2])
TEXT = [
    *product(("ink", "quiet", "accent", "bad", "warn", "good"), ("page", "card")),
    *(("ink", "bad-soft"), ("quiet", "bad-soft"), ("bad", "bad-soft"), ("warn", "warn-soft")),
]
GRAPHICS = [(colour, "card") for colour in ("reference", "now", "v0", "v1", "v2", "v3", "v4", "v5")]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_the_standard_says() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("one", "other", "least"), [*((*pair, 4.5) for pair in TEXT), *((*pair, 3.0) for pair in GRAPHICS)]
)
def test_colours_stand_out(scheme: dict[str, str], one: str, other: str, least: float) -> None:
    assert contrast(scheme[one], scheme[other]) >= least
