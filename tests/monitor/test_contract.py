"""The contract that is written down is the one that is decoded."""

from __future__ import annotations

import re
from pathlib import Path

from monitor.decode import decode
from monitor.events import json_schema

DOCS = Path(__file__).parents[2] / "docs"


def test_the_exported_schema_is_current() -> None:
    assert (DOCS / "events.schema.json").read_text("utf-8") == json_schema()


def test_the_documented_examples_are_accepted() -> None:
    text = (DOCS / "events.md").read_text("utf-8")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block
    lines = block[1].encode().splitlines()
    decoded = decode(lines, arrived=2_000_000_000)
    assert (decoded.accepted, decoded.rejects) == (4, [])


def test_every_reason_is_documented() -> None:
    source = (DOCS.parent / "monitor" / "decode.py").read_text("utf-8")
    reasons = set(re.findall(r'_Refused\("(\w+)"', source)) | {"missing_key", "bad_timestamp"}
    text = (DOCS / "events.md").read_text("utf-8")
    assert {r for r in reasons if f"`{r}`" not in text} == set()
