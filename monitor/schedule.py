"""When jobs run. What they do depends on the time they are given: a run that was missed is made up for by the next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from monitor.clock import Clock
from monitor.metrics import Metrics

Job = Callable[[datetime], Any]
log = structlog.get_logger()


class Schedule:
    """Runs jobs every so often on threads of its own, each with the clock's time. One run of a job at a time."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        # The library's defaults skip a run that is a second late, silently; here a late run is still made, once.
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(8)}, job_defaults=defaults, timezone=UTC
        )
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        self._scheduler.add_listener(self._missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def every(self, seconds: float, name: str, job: Job) -> None:
        """Run a job every so many seconds, the first time at once."""
        self._scheduler.add_job(
            lambda: job(self._clock.now()), "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC)
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """Let running jobs finish, and end."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _failed(self, event: JobEvent) -> None:
        self._metrics.job_failures.labels(event.job_id).inc()
        log.error("job failed", job=event.job_id, error=repr(event.exception), traceback=event.traceback)

    def _missed(self, event: JobEvent) -> None:
        self._metrics.jobs_missed.labels(event.job_id).inc()
