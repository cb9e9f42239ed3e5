"""Who serves what: the grid of servers and versions of a model, and the list of all servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.formats import NOTHING, count, counted, decimal, milliseconds, number, share
from dashboards.markup import Content, Html, anchor, join, tag
from dashboards.parts import age, long_table, natural, row, swatch, when
from dashboards.words import Row, listed, name, separated, text, version_of

SERVERS_SHOWN = 12
MOST_VERSIONS = 8
CLOCK_TOLERANCE = 5.0
"""Seconds. What is less may be the way that events take."""


def fleet_grid(key: str, places: Sequence[Row], colours: Mapping[str, int], now: Any) -> Html:
    """A row per server and a column per version: since when it serves there, or until when it did."""
    if not places:
        return tag("p", "No traffic yet.", class_="quiet")
    grid: dict[str, dict[str, Row]] = {}
    for one in places:
        grid.setdefault(text(one.get("server")), {})[version_of(one)] = one
    versions = _versions(places)
    shown = versions[:MOST_VERSIONS]
    head = [
        "Server",
        *(_version_head(v, [g[v] for g in grid.values() if v in g], len(grid), colours[v]) for v in shown),
    ]
    rows = [row(name(server), *(_cell(grid[server].get(v), now) for v in shown)) for server in _servers(grid)]
    older = len(versions) - len(shown)
    note = f"{counted(older, 'earlier version')} not shown here; the API has them all."
    return join(
        [
            long_table(anchor("fleet", key), "Which version serves on which server", head, rows, SERVERS_SHOWN),
            tag("p", note, class_="quiet") if older else None,
        ]
    )


def server_table(servers: Sequence[Row], now: Any) -> Html:
    """Every server with what serves there, its health checks, those that fail coming first, and its clock."""
    if not servers:
        return tag("p", "No server is known yet.", class_="quiet")
    ordered = sorted(servers, key=lambda s: (-(number(s.get("failures")) or 0.0), natural(s.get("server"))))
    rows = [row(name(s.get("server")), _serves(s), _health(s, now), _clock(s)) for s in ordered]
    caption = "Servers and their health checks and clocks of the last hour"
    head = ["Server", "Serves", "Health checks", "Clock"]
    return long_table(anchor("servers"), caption, head, rows, SERVERS_SHOWN)


def _versions(places: Sequence[Row]) -> list[str]:
    """Those that serve first, then those seen last."""
    last: dict[str, tuple[bool, str]] = {}
    for one in places:
        version = version_of(one)
        seen = (bool(one.get("serving")), str(one.get("last_seen") or ""))
        last[version] = max(last.get(version, seen), seen)
    by_name = sorted(last, key=natural)
    return sorted(by_name, key=lambda v: (last[v][0], "" if last[v][0] else last[v][1]), reverse=True)


def _servers(grid: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """In a fleet of many, the servers that serve what nobody announced come first."""
    odd = {s for s, places in grid.items() if any(_unannounced(p) for p in places.values())}
    return sorted(grid, key=lambda s: (len(grid) > SERVERS_SHOWN and s not in odd, natural(s)))


def _unannounced(one: Row) -> bool:
    return one.get("announced") is False and bool(one.get("serving"))


def _version_head(version: str, places: Sequence[Row], servers: int, colour: int) -> Html:
    serving = sum(bool(p.get("serving")) for p in places)
    words = f"on {serving} of {counted(servers, 'server')}" if serving else "does not serve"
    unannounced = sum(_unannounced(p) for p in places)
    mark = tag("span", f"not announced on {unannounced}", class_="tag warn") if unannounced else None
    title = [swatch(colour), "version ", name(version)]
    return tag("span", tag("span", title, class_="top"), tag("span", words, class_="quiet"), mark, class_="stack")


def _cell(one: Row | None, now: Any) -> Html:
    if one is None:
        return tag("span", NOTHING, class_="quiet")
    first, last = when(one.get("first_seen"), now), when(one.get("last_seen"), now)
    mark = tag("span", "not announced", class_="tag warn") if one.get("announced") is False else None
    rows = counted(one.get("rows"), "row")
    if one.get("serving"):
        return join([tag("span", "● serves", class_="good"), mark, _aside("since ", first, " · ", rows)])
    return join([tag("span", "○ gone", class_="quiet"), mark, _aside(first, " to ", last, " · ", rows)])


def _aside(*content: Content) -> Html:
    return tag("span", content, class_="quiet aside")


def _serves(server: Row) -> Content:
    served = [
        tag("span", name(s.get("model"), 24), " ", name(s.get("version"), 16)) for s in listed(server.get("serves"))
    ]
    return tag("span", served, class_="stack") if served else tag("span", "nothing", class_="quiet")


def _health(server: Row, now: Any) -> Html:
    probes, failures = number(server.get("probes")), number(server.get("failures")) or 0.0
    dropped = number(server.get("dropped"))
    lost = tag("span", f"lost {counted(dropped, 'event')}", class_="tag warn") if dropped else None
    if not probes:
        return join([tag("span", "not checked", class_="quiet"), lost])
    if failures:
        state = tag("span", f"✕ {count(failures)} of {count(probes)} failed ({share(failures / probes)})", class_="bad")
    else:
        state = tag("span", f"✓ {count(probes)} answered", class_="good")
    latency = number(server.get("latency_p95_ms"))
    known = [
        join(f"p95 {milliseconds(latency)}") if latency is not None else Html(),
        age(server["last_check"], now) if server.get("last_check") else Html(),
    ]
    return join([state, lost, _aside(separated(known, " · "))])


def _clock(server: Row) -> Content:
    ahead, delay = number(server.get("clock_ahead_seconds")), number(server.get("arrival_delay_seconds"))
    if ahead is None or delay is None:
        return tag("span", NOTHING, class_="quiet")
    if abs(ahead) <= CLOCK_TOLERANCE:
        state = tag("span", "as the others'", class_="good")
    elif ahead > 0:
        state = tag("span", f"{decimal(ahead)} s ahead", class_="bad")
    else:
        state = tag("span", f"{decimal(-ahead)} s behind, or ships late")
    return join([state, _aside(f"events arrive {decimal(delay)} s after their time")])
