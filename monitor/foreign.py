"""What adapters read, taken in: their lines as any others, their refusals as dead letters."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

import monitor.adapters
from alerts.kinds import kinds_in
from monitor.adapters import Adapter, AdapterSettings, FullError, Sender, Translated
from monitor.decode import Reject
from monitor.imports import FILE, Chunk
from monitor.ingest import Origin, Receipt

if TYPE_CHECKING:
    from monitor.service import Service

MOST_AT_ONCE = 32
log = structlog.get_logger()


class UnknownAdapterError(Exception):
    """There is no adapter of that name."""


class Foreign:
    """All adapters, and the way from them into the store."""

    def __init__(self, service: Service, settings: AdapterSettings) -> None:
        self._service = service
        self._adapters: Mapping[str, Adapter] = {
            name: kind(settings) for name, kind in kinds_in(monitor.adapters).items()
        }
        self._metrics = service.metrics
        self._metrics.waiting_halves.set_function(lambda: sum(a.waiting() for a in self._adapters.values()))

    def take(
        self, name: str, body: bytes, headers: Mapping[str, str], sender: Sender, key: str = "", source: str = ""
    ) -> Receipt | None:
        """Take foreign bytes in; returns when that is durable. None while they wait for their other half.

        name
            The adapter's, as in URLs or as its file is called.
        key
            Names the batch of a chunk of a file; with other sources, another batch for the same bytes.

        Raises UnknownAdapterError, FullError and StoreError.
        """
        name = name.replace("-", "_")
        adapter = self._adapters.get(name)
        if adapter is None:
            names = ", ".join(n.replace("_", "-") for n in sorted(self._adapters))
            raise UnknownAdapterError(f"{name[:60]!r} is not an adapter; known: {names}")
        now = self._service.clock.now()
        try:
            translated = adapter.translate(body, headers, sender, now.timestamp())
        except FullError:
            self._metrics.turned_away.inc()
            raise
        if translated.waiting:
            return None
        if translated.identity and not translated.lines:  # sent again: what the batch says of itself must stay
            return Receipt(0, [])
        if key and source == FILE and not translated.identity:
            receipt = self._import(key, body, translated)
        else:
            batch = translated.identity or _named(sender, key, _records(body, translated))
            receipt = self._store(translated, Origin(name if translated.identity else source or name, batch, now))
        adapter.settled(translated)
        return receipt

    def take_overdue(self, now: datetime) -> int:
        """Take in what has waited long enough for its other half; gives how many."""
        late = [(name, each) for name, adapter in self._adapters.items() for each in adapter.overdue(now.timestamp())]
        with ThreadPoolExecutor(MOST_AT_ONCE) as threads:  # so that they are written together
            return len(list(threads.map(functools.partial(self._take_late, now), late)))

    def _take_late(self, now: datetime, late: tuple[str, Translated]) -> None:
        name, translated = late
        self._store(translated, Origin(name, translated.identity, now))
        self._adapters[name].settled(translated)
        if translated.alone:
            self._metrics.lone_halves.labels(translated.alone).inc()

    def _import(self, key: str, body: bytes, translated: Translated) -> Receipt:
        lines = _records(body, translated).split(b"\n")
        numbers = [record - translated.heading for record in translated.records]
        chunk = Chunk(lines, translated.lines, numbers, translated.refused)
        receipt = self._service.imports.take(key, chunk, translated.sender.allowed)
        return Receipt(receipt.accepted, _by_record(receipt.rejects, translated))

    def _store(self, translated: Translated, origin: Origin) -> Receipt:
        receipt = self._service.take_batch(translated.lines, origin, translated.sender.allowed, translated.refused)
        return Receipt(receipt.accepted, _by_record(receipt.rejects, translated))


def _named(sender: Sender, key: str, body: bytes) -> str:
    told = (sender.caller, sender.model, sender.version, sender.server, sender.environment, key)
    return hashlib.sha256(b"\x1f".join((*map(str.encode, told), body))).hexdigest()[:32]


def _records(body: bytes, translated: Translated) -> bytes:
    return body.split(b"\n", translated.heading)[-1]


def _by_record(rejects: Sequence[Reject], translated: Translated) -> list[Reject]:
    """Rejects that name the sender's records, not our lines."""
    ordered = sorted(rejects, key=lambda reject: reject.row)
    return [dataclasses.replace(reject, row=translated.records[reject.row]) for reject in ordered]
