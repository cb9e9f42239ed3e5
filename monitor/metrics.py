"""Every metric that ``/metrics`` shows, by name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The service's own measurements, each service with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.accepted = Counter("telltale_events_accepted_total", "Events taken in.", registry=r)
        self.rejected = Counter("telltale_events_rejected_total", "Lines dead-lettered.", ["reason"], registry=r)
        self.ingest_seconds = Histogram("telltale_ingest_seconds", "Time to take a batch in.", registry=r)
        self.windows = Counter("telltale_windows_judged_total", "Windows judged.", ["model", "kind"], registry=r)
        self.judge_seconds = Histogram("telltale_judge_seconds", "Time to judge a window.", registry=r)
        self.judge_failures = Counter("telltale_judge_failures_total", "Windows that could not be judged.", registry=r)
        self.judged_until = Gauge(
            "telltale_judged_until_seconds", "End of the last window judged.", ["model", "kind"], registry=r
        )
        self.deliveries = Counter("telltale_deliveries_total", "Messages handed to receivers.", registry=r)
        self.probes = Counter("telltale_probes_total", "Health checks made.", ["server", "ok"], registry=r)
        self.job_failures = Counter("telltale_job_failures_total", "Scheduled jobs that failed.", ["job"], registry=r)
        self.jobs_missed = Counter(
            "telltale_jobs_missed_total", "Scheduled runs that were skipped.", ["job"], registry=r
        )
        self.open_incidents = Gauge("telltale_open_incidents", "Incidents that are firing.", registry=r)
