"""What serves: rows by version and server, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

Served = Mapping[str, Mapping[str, int]]
"""Rows by version and server."""


SERVED_WITHIN = timedelta(minutes=10)
LONGEST_LOOK = timedelta(days=2)
ENOUGH_ROWS = 200


class Traffic(Protocol):
    """Knows what served when."""

    def served(self, environment: str, model: str, since: datetime, until: datetime) -> Served:
        """Rows of each version on each server, from ``since`` to ``until``."""
        ...


def rows_of(served: Served, version: str = "", server: str = "") -> int:
    """Rows of a version on a server; empty means all of them.

    >>> rows_of({"1": {"a": 5, "b": 3}, "2": {"b": 1}}, server="b")
    4
    """
    return sum(
        rows for v, servers in served.items() for s, rows in servers.items() if version in ("", v) and server in ("", s)
    )


def served_now(traffic: Traffic, environment: str, model: str, now: datetime) -> Served:
    """What served in the last ten minutes."""
    return traffic.served(environment, model, now - SERVED_WITHIN, now)


def served_lately(traffic: Traffic, environment: str, model: str, now: datetime) -> Served:
    """What served in the last ten minutes, or as much longer as it takes to see ``ENOUGH_ROWS``, up to two days.

    So that a version with few rows is not taken for gone, nor one whose model pauses, as batches do.
    """
    within = SERVED_WITHIN
    served = served_now(traffic, environment, model, now)
    while rows_of(served) < ENOUGH_ROWS and within < LONGEST_LOOK:
        within = min(2 * within, LONGEST_LOOK)
        served = traffic.served(environment, model, now - within, now)
    return served


def has_gone(lately: Served, watch: str, version: str, server: str) -> bool:
    """Whether the accused has no rows among enough rows of the model: then its share is below 1.5 % (95 % bound).

    A model without traffic says nothing of its versions and servers. ``health`` and ``silence`` are about servers
    whether they get traffic or not: a dead one has not become healthy.
    """
    accuses = (version or server) and watch not in ("health", "silence")
    return bool(accuses) and rows_of(lately) >= ENOUGH_ROWS and rows_of(lately, version, server) == 0


def lost_subject(lately: Served, watch: str, version: str, server: str) -> str:
    """That the accused has gone, in words; empty when it has not."""
    if not has_gone(lately, watch, version, server):
        return ""
    places = (("version", version), ("server", server))
    return f"{' on '.join(f'{what} {name}' for what, name in places if name)} no longer serves"
