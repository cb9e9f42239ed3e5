"""Where log lines go: to standard error, so that standard output holds answers only."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TextIO, cast

import structlog

LEVEL_VARIABLE = "TELLTALE_LOG_LEVEL"


def configure() -> None:
    """Key-value lines on a terminal, JSON lines elsewhere; the level comes from ``TELLTALE_LOG_LEVEL``."""
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "INFO").upper(), logging.INFO)
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it warns of every attempt; the intake says what matters
    # without the values of variables in tracebacks, which the default shows: some of them are secrets
    for_people = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    for_machines = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(for_people if sys.stderr.isatty() else for_machines),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
    )


class _StandardError:
    """Standard error as it is at the time. Where nobody can read it any more, lines are lost, and nothing else is."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
