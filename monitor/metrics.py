"""Every metric that ``/metrics`` shows, by name.

``python -m monitor.metrics docs/metrics.md`` brings the table in that page up to date.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

HEADINGS = ("Metric", "Kind", "Labels", "Meaning")
INSERT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Unflushed:
    """What was received and is not durable yet, and since when."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}

    def hold(self, what: Hashable, since: float) -> None:
        """Something is here since a time of ``time.monotonic``."""
        self._since[what] = since

    def release(self, what: Hashable) -> None:
        """It is durable, or it is not here any more."""
        self._since.pop(what, None)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Something is here as long as the context lasts."""
        what = object()
        self.hold(what, time.monotonic())
        try:
            yield
        finally:
            self.release(what)

    def longest(self) -> float:
        """For how many seconds the oldest of it is here; 0 where there is nothing."""
        now = time.monotonic()
        return now - min(tuple(self._since.values()), default=now)


class Metrics:
    """The service's own measurements, each service with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.accepted = Counter("telltale_events_accepted_total", "Events taken in.", registry=r)
        self.rejected = Counter("telltale_events_rejected_total", "Lines dead-lettered.", ["reason"], registry=r)
        self.stopped_logs = Gauge(
            "telltale_stopped_logs", "Partitions that are not read on, as too much there is no event.", registry=r
        )
        self.duplicates = Gauge(
            "telltale_duplicate_predictions",
            "Predictions of the last whole hour that are there more than once, by version and id.",
            ["environment", "model"],
            registry=r,
        )
        self.client_drops = Gauge(
            "telltale_client_dropped_events",
            "Events that clients lost, by their reports of the last hour.",
            ["environment", "model", "version", "server"],
            registry=r,
        )
        self.waiting_halves = Gauge(
            "telltale_waiting_halves", "Requests and responses that wait for their other half.", registry=r
        )
        self.lone_halves = Counter(
            "telltale_lone_halves_total", "Halves whose other half did not come in time.", ["half"], registry=r
        )
        self.turned_away = Counter(
            "telltale_turned_away_total", "Halves that were not taken, as too many wait.", registry=r
        )
        self.unflushed = Unflushed()
        self.unflushed_seconds = Gauge(
            "telltale_unflushed_seconds",
            "For how long the oldest event is in memory that is not durable yet; 0 where there is none.",
            registry=r,
        )
        self.unflushed_seconds.set_function(self.unflushed.longest)
        self.insert_seconds = Histogram(
            "telltale_insert_seconds",
            "Time until rows were durable in a table.",
            ["table"],
            buckets=INSERT_SECONDS,
            registry=r,
        )
        self.insert_failures = Counter(
            "telltale_insert_failures_total", "Inserts that the store did not take.", ["table"], registry=r
        )
        self.parts = Gauge("telltale_parts", "Parts that a table is in.", ["table"], registry=r)
        self.partition_parts = Gauge(
            "telltale_partition_parts", "Parts of a table's partition that is in the most.", ["table"], registry=r
        )
        self.ingest_seconds = Histogram("telltale_ingest_seconds", "Time to take a batch in.", registry=r)
        self.windows = Counter("telltale_windows_judged_total", "Windows judged.", ["model", "kind"], registry=r)
        self.judge_seconds = Histogram("telltale_judge_seconds", "Time to judge a window.", registry=r)
        self.judge_failures = Counter("telltale_judge_failures_total", "Windows that could not be judged.", registry=r)
        self.judged_until = Gauge(
            "telltale_judged_until_seconds",
            "End of the last window judged, in Unix time.",
            ["environment", "model", "kind", "window"],
            registry=r,
        )
        self.deliveries = Counter("telltale_deliveries_total", "Messages handed to receivers.", registry=r)
        self.delivery_failures = Counter(
            "telltale_delivery_failures_total", "Requests that no receiver took.", registry=r
        )
        self.probes = Counter("telltale_probes_total", "Health checks made.", ["server", "ok"], registry=r)
        self.job_failures = Counter("telltale_job_failures_total", "Scheduled jobs that failed.", ["job"], registry=r)
        self.jobs_missed = Counter(
            "telltale_jobs_missed_total", "Scheduled runs that were skipped.", ["job"], registry=r
        )
        self.open_incidents = Gauge("telltale_open_incidents", "Incidents that are firing.", registry=r)
        self.disagreements = Gauge(
            "telltale_audit_disagreements",
            "What the last audit found that is not as it was counted, repaired or not.",
            registry=r,
        )
        self.source_up = Gauge("telltale_kafka_up", "1 while Kafka is being read, 0 while not.", registry=None)
        """Registered where Kafka is to be read, as every other process would tell that it is not."""
        self.lag = Gauge(
            "telltale_kafka_lag_messages", "Messages that are not taken in yet.", ["topic", "partition"], registry=r
        )
        self.lag_seconds = Gauge(
            "telltale_kafka_lag_seconds",
            "Age of the oldest message that is not taken in yet; 0 where all are.",
            ["topic", "partition"],
            registry=r,
        )
        self.taken_in_until = Gauge(
            "telltale_kafka_taken_in_until_seconds",
            "Up to when all that arrived is taken in, by whichever process, in Unix time.",
            ["topic"],
            registry=r,
        )
        self.batches = Counter("telltale_kafka_batches_total", "Batches taken in from Kafka.", registry=r)
        self.replays = Counter("telltale_kafka_replays_total", "Batches that were begun before, taken in.", registry=r)
        self.retries = Counter("telltale_kafka_retries_total", "Batches that the store did not take.", registry=r)
        self.rebalances = Counter(
            "telltale_kafka_rebalances_total", "Times that partitions were given or taken.", registry=r
        )
        self.lost_offsets = Counter(
            "telltale_kafka_lost_offsets_total", "Messages that Kafka deleted before they were read.", registry=r
        )


def show_all(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Let a gauge show these values, by its labels, and no others."""
    (about,) = gauge.collect()
    for labels in {tuple(sample.labels.values()) for sample in about.samples} - values.keys():
        gauge.remove(*labels)
    for labels, value in values.items():
        gauge.labels(*labels).set(value)


def metrics_table() -> str:
    """All metrics as a table in Markdown, in the order in which they are defined."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    rows += [_row(metric) for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(page: str) -> str:
    """A page with the table that it holds replaced by the current one."""
    return re.sub(rf"^\| {HEADINGS[0]} \|.*\n(\|.*\n)*", lambda _: metrics_table(), page, flags=re.MULTILINE)


def _row(metric: MetricWrapperBase) -> tuple[str, ...]:
    (about,) = metric.describe()
    name = f"{about.name}_total" if about.type == "counter" else about.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - the library shows them nowhere else
    return f"`{name}`", about.type, labels, about.documentation


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text("utf-8")), "utf-8")
