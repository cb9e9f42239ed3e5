"""What Prometheus sees of the service, and what the page on metrics says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import prometheus_client
import pytest
from given import NOON, ServiceMaker, ndjson, prediction
from processes import unavailable, wait_until
from prometheus import ask, prometheus

from monitor.metrics import Metrics, metrics_table, with_table
from monitor.running import listening, serve

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
KEY = {"name": "prometheus", "key_env": "SCRAPE_KEY", "scopes": ["read"]}


def promtool(*arguments: str, text: str = "") -> str:
    executable = shutil.which("promtool") or unavailable(
        "promtool is not installed; it is in the Debian package prometheus"
    )
    done = subprocess.run([executable, *arguments], input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_prometheus_scrapes_the_service_with_a_key(
    make_service: ServiceMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRAPE_KEY", "hush")
    (tmp_path / "key").write_text("hush")
    service = make_service(api_keys=[KEY])
    service.take(ndjson([prediction(i, NOON) for i in range(42)]) + b"\nnot json", "http")

    def asked(query: str) -> list[tuple[dict[str, str], float]]:
        answer = ask(f"{url}/api/v1/query", query=query)
        return [(r["metric"], float(r["value"][1])) for r in answer["data"]["result"]]

    with (
        listening("127.0.0.1", 0) as (listener, at),
        serve(service, listener, at),
        prometheus(tmp_path, at.removeprefix("http://"), tmp_path / "key") as url,
    ):
        wait_until(lambda: asked("sum(telltale_events_accepted_total)") == [({}, 42.0)], "a scrape with all events")
        assert asked("sum by (reason) (last_over_time(telltale_events_rejected_total[1m]))") == [
            ({"reason": "not_json"}, 1.0)
        ]


def test_prometheus_finds_nothing_wrong_with_the_names() -> None:
    text = prometheus_client.generate_latest(Metrics().registry).decode()
    assert promtool("check", "metrics", text=text) == ""
    assert "a_total" in promtool("check", "metrics", text="# TYPE a_total gauge\na_total 1\n")


def test_the_table_on_the_page_is_what_the_code_has() -> None:
    page = PAGE.read_text("utf-8")
    assert metrics_table() in page, "run: python -m monitor.metrics docs/metrics.md"


def test_a_table_that_is_out_of_date_is_replaced_and_nothing_else() -> None:
    page = "before\n\n| Metric | Kind |\n| --- | --- |\n| `gone` | gauge |\n\n| label |\n| --- |\n"
    assert with_table(page) == f"before\n\n{metrics_table()}\n| label |\n| --- |\n"


def test_a_metric_is_in_the_table_with_its_labels() -> None:
    row = "| `telltale_events_rejected_total` | counter | `reason` | Lines dead-lettered. |"
    assert row in metrics_table().splitlines()
    metrics = Metrics()
    metrics.registry.register(metrics.source_up)  # as where Kafka is read
    shown = re.findall(r"^# HELP (\w+)", prometheus_client.generate_latest(metrics.registry).decode(), re.MULTILINE)
    tabled = re.findall(r"^\| `(\w+)`", metrics_table(), re.MULTILINE)
    assert sorted(tabled) == sorted(name for name in shown if not name.endswith("_created"))


def test_the_rules_on_the_page_are_right_and_name_metrics_that_there_are(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(groups:.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for number, rules in enumerate(blocks):
        file = tmp_path / f"{number}.yml"
        file.write_text(rules)
        assert promtool("check", "rules", str(file)) == ""
        named = {name.removesuffix("_bucket") for name in re.findall(r"telltale_\w+", rules)}
        assert named <= set(re.findall(r"`(\w+)`", metrics_table()))
