"""Every metric that ``/metrics`` shows, by name.

``python -m monitor.metrics docs/metrics.md`` brings the table in that page up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

HEADINGS = ("Metric", "Kind", "Labels", "Meaning")


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
        self.batches = Counter("telltale_kafka_batches_total", "Batches taken in from Kafka.", registry=r)
        self.replays = Counter("telltale_kafka_replays_total", "Batches that were begun before, taken in.", registry=r)
        self.retries = Counter("telltale_kafka_retries_total", "Batches that the store did not take.", registry=r)
        self.rebalances = Counter(
            "telltale_kafka_rebalances_total", "Times that partitions were given or taken.", registry=r
        )
        self.lost_offsets = Counter(
            "telltale_kafka_lost_offsets_total", "Messages that Kafka deleted before they were read.", registry=r
        )


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
