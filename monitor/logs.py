"""Where log lines go: to standard error, so that standard output holds answers only."""

from __future__ import annotations

import logging
import os
import sys

import structlog

LEVEL_VARIABLE = "TELLTALE_LOG_LEVEL"


def configure() -> None:
    """Key-value lines on a terminal, JSON lines elsewhere; the level comes from ``TELLTALE_LOG_LEVEL``."""
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "INFO").upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.format_exc_info,
            *([] if terminal else [structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
