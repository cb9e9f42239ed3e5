"""The adapters' part of the configuration, and the files that ship events."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.config import ConfigError
from monitor.config_file import loads

ROOT = Path(__file__).parents[3]
SHIPPERS = ("vector.yaml", "fluent-bit.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kserve: {join_seconds: 5}}", "adapters.kserve.join_seconds: 'join_seconds' is not a key of adapters.kserve"),
        ("{kserve: {join_within: 1h}}", "adapters.kserve.join_within: must be above 0s and at most 10m"),
        ("{kserve: {unanswered: maybe}}", "adapters.kserve.unanswered: 'maybe' is not known; use 'error' or 'ok'"),
        ("{bentoml: {timezone: Mars}}", "adapters.bentoml.timezone: 'Mars' does not fit: invalid timezone: Mars"),
        ("{sagemaker: {}}", "adapters.sagemaker: 'sagemaker' is not a key of adapters"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loads(f"adapters: {text}", Path("telltale.yaml"))
    assert f"telltale.yaml: {said}" in str(refused.value)


def test_the_example_of_the_documentation_is_right() -> None:
    text = (ROOT / "docs" / "adapters.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(adapters:.*?)```", text, re.DOTALL)
    read = loads(example, Path("telltale.yaml")).adapters
    assert read.bentoml.timezone.key == "Europe/Berlin"
    assert read.feature_names["loans"] == ("age", "income")


def sinks(shipper: str, text: str) -> list[dict[str, Any]]:
    config = yaml.safe_load(text)
    return list(config["sinks"].values()) if shipper == "vector.yaml" else list(config["pipeline"]["outputs"])


@pytest.mark.parametrize("shipper", SHIPPERS)
def test_a_shipper_sends_every_event_one_way_and_holds_no_secret(shipper: str) -> None:
    text = (ROOT / "deploy" / shipper).read_text("utf-8")
    (http,) = sinks(shipper, text)
    assert "/v1/events" in str(http.get("uri"))
    assert "${TELLTALE_API_KEY}" in str(http)


@pytest.mark.parametrize("shipper", SHIPPERS)
def test_the_lines_for_kafka_are_right_without_their_marks(shipper: str) -> None:
    text = (ROOT / "deploy" / shipper).read_text("utf-8")
    http = "  telltale:\n" if shipper == "vector.yaml" else "    - name: http\n"
    start, block = text.index(http), text.index("By Kafka instead")
    kept = text[:start] + re.sub(r"^( *)# ?", r"\1", text[text.index("\n", block) :], flags=re.MULTILINE)
    (kafka,) = sinks(shipper, kept)
    assert "kafka" in (kafka.get("type"), kafka.get("name"))
    assert "${KAFKA_PASSWORD}" in str(kafka)
    assert "acks" in str(kafka)
