"""The rooms wired together: everything the API, the command line and the schedule ask for goes through here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import orjson
import polars as pl
import structlog

from alerts.desk import Desk, ModelRules
from alerts.ledger import Claim, Ledger, LedgerError
from detectors.finding import Finding, Window, worst_first
from detectors.layout import LayoutError
from monitor.adapters import Sender
from monitor.audit import KAFKA, AuditError, Auditor, Read
from monitor.clock import Clock, SystemClock
from monitor.clocks import read_clocks
from monitor.config import Config, ConfigError, ModelSpec
from monitor.config_file import read_rules
from monitor.dead_letter_watch import TooManyDeadLettersError
from monitor.dead_letters import DeadLetters
from monitor.decode import Reject, split_lines
from monitor.durations import format_duration
from monitor.findings import finding_to_dict, latest_findings
from monitor.fleet import BEGINNING, ServedTraffic, fleet
from monitor.foreign import Foreign
from monitor.forgetting import forget_entity, forget_predictions, remove_forgotten
from monitor.gathering import MOST_LINES, Gathering
from monitor.health import probe
from monitor.imports import FILE, Chunk, Imports
from monitor.ingest import BATCH_TABLES, Ingest, Origin, Receipt
from monitor.intake import Progress
from monitor.judge import Judge
from monitor.late import LateWindow, LateWindows, late_kind, save_judgement, watched_for
from monitor.metrics import Metrics
from monitor.reference import References, TableError, read_table
from monitor.registry import Model, Registry, view_name
from monitor.replay import replay_past
from monitor.retention import Keeper
from monitor.secrets import read_secret
from monitor.sources import Message, Place, SourceError
from monitor.spending import spending
from monitor.store import StoreError, migrate
from monitor.store.measured import Measured
from monitor.store.opening import open_store
from monitor.store.together import Together
from monitor.tables import TableLines, is_table
from monitor.vitals import Vitals
from monitor.windows import EPOCH, LATE_ALLOWANCE, due, is_due, next_start

LEASE = timedelta(minutes=10)
IMPORT_LEASE = timedelta(minutes=1)
"""An import that was killed holds up the next one of the same file for so long."""
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MOST_WINDOWS_A_TICK = 500
"""Catching up after a long pause is spread over several runs, so that deliveries do not wait."""
MOST_ATTEMPTS = 3
"""A window that cannot be judged after so many tries is written down as an error, and does not hold up the next."""
log = structlog.get_logger()


class Service:
    """All rooms of one process. On a server store there may be several processes, each running some of the rooms.

    Raises StoreBusyError when another process has the embedded store's folder.
    """

    def __init__(self, config: Config, clock: Clock | None = None, callback_base: str = "") -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self._failures: dict[Claim, int] = {}
        self._progress: Sequence[Progress] = ()
        self._followed = EPOCH + HOUR
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            config.store.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"store.path: {config.store.path} cannot be made a folder: {error.strerror}") from None
        measured = Measured(open_store(config.store), self.metrics)
        self.store = Together(measured, kept=(*BATCH_TABLES, "profile_marks", "label_marks"), last="batches")
        try:
            self.applied_migrations = migrate(self.store)
            self.ledger = Ledger(config.store.ledger_url, _ledger_password(config))
            self.ledger.create()
            for spec in config.models.values():
                if spec.privacy.hash:  # better now than at the first event
                    read_secret(spec.privacy.hash_key_env, spec.privacy.hash_key_file)
            self.registry = Registry(self.store, config, self.clock.now())
            self.references = References(self.store, self.registry, self._may_learn)
            self.ingest = Ingest(self.store, self.registry, self.references, config)
            self.gathering = Gathering(self.store, self.ingest)
            self.dead_letters = DeadLetters(self.store, self.ingest)
            self.imports = Imports(self)
            self.foreign = Foreign(self, config.adapters)
            self.vitals = Vitals(self.store, self.metrics)
            self.judge = Judge(self.store, self.references)
            self.late = LateWindows(self.store)
            self.keeper = Keeper(self.store, self.registry, self.references, config)
            logs = self._open_logs if config.sources.kafka is not None else None
            self.auditor = Auditor(self.store, self.registry, self.references, self.ingest, logs)
            self.desk = Desk(
                self.ledger,
                config.policies,
                config.notifiers,
                config.actions,
                ServedTraffic(self.store),
                callback_base=callback_base,
                not_received=self.metrics.delivery_failures.inc,
            )
            self._register_declared_references()
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        """Release the store and the ledger."""
        self.ledger.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Events in

    def take(
        self,
        body: bytes,
        source: str,
        key: str = "",
        caller: str = "",
        models: frozenset[str] = frozenset(),
        content_type: str = "",
    ) -> Receipt:
        """Take events in: an object, an array, NDJSON or an Arrow stream; the same under the same key changes nothing.

        A key used again for other bytes names another batch, so that nothing is overwritten. ``models``: those the
        caller may write to; empty for all. Raises BadTableError for a table that cannot be read.
        """
        lines = _lines(body, content_type)
        if key and source == FILE:
            of_table = isinstance(lines, TableLines)
            chunk = Chunk.of_table(body, lines) if of_table else Chunk.of_lines(lines)
            return self.imports.take(key, chunk, models)
        whole = b"\x1f".join((caller.encode(), key.encode(), body))
        batch = hashlib.sha256(whole).hexdigest()[:32]
        return self.take_batch(lines, Origin(source, batch, self.clock.now()), models)

    def take_batch(
        self,
        lines: Sequence[bytes],
        origin: Origin,
        models: frozenset[str] = frozenset(),
        refused: Sequence[Reject] = (),
    ) -> Receipt:
        """Take the lines of a batch in that has an identity of its own. ``refused``: those that were so before."""
        started = time.perf_counter()
        try:
            with self.metrics.unflushed.holding():
                small = origin.last is None and len(lines) <= MOST_LINES
                take = self.gathering.take if small else self.ingest.take
                forgotten = self.ingest.forgotten.counts()
                receipt = take(lines, origin, models, refused)
                for place, count in self.ingest.forgotten.counts().items():
                    if count > forgotten.get(place, 0):  # while the batch was on its way, maybe with their rows
                        remove_forgotten(self.store, *place)
        finally:
            self.metrics.stopped_logs.set(len(self.ingest.watch.stopped))
        self.metrics.ingest_seconds.observe(time.perf_counter() - started)
        self.metrics.accepted.inc(receipt.accepted)
        for reject in receipt.rejects:
            self.metrics.rejected.labels(reject.reason).inc()
        return receipt

    def forget_batch(self, origin: Origin) -> None:
        """Remove what is there of a batch."""
        self.ingest.forget(origin)

    def report_progress(self, progress: Sequence[Progress]) -> None:
        """Hear how far each partition of Kafka is taken in; ``write_progress`` tells the other processes."""
        self._progress = progress
        self.ingest.watch.keep_to({f"{KAFKA}{p.place}/" for p in progress})
        self.metrics.stopped_logs.set(len(self.ingest.watch.stopped))

    def write_progress(self, now: datetime) -> None:
        """Keep how far Kafka is taken in, for whoever judges."""
        progress, self._progress = self._progress, ()
        if progress:
            rows = {
                "topic": [p.place.topic for p in progress],
                "partition": pl.Series([p.place.partition for p in progress], dtype=pl.UInt32),
                "log": [p.log for p in progress],
                "complete_until": [p.complete_until for p in progress],
                "written": [now] * len(progress),
            }
            self.store.insert("progress", pl.DataFrame(rows))

    @property
    def revision(self) -> str:
        """Names the part of the configuration that decides what becomes of an event."""
        return self.config.intake_revision

    def import_chunk(self, chunk: bytes, key: str) -> dict[str, Any]:
        """Take a chunk of a file in. Under the same key, one that has grown is the same; see ``Imports``."""
        return self.take(chunk, FILE, key).to_dict()

    def import_foreign(self, adapter: str, chunk: bytes, key: str, sender: Mapping[str, str]) -> dict[str, Any]:
        """Take a chunk of a file in that an adapter reads."""
        receipt = self.foreign.take(adapter, chunk, {}, Sender.of(sender), key, FILE)
        return (receipt or Receipt(0, ())).to_dict()

    def probe(self, now: datetime) -> None:
        """Ask every server's health URL once."""
        lines = probe(self.config.servers, now)
        if lines:
            self.ingest.take(lines, Origin("probe", f"{now.timestamp():.3f}", now))
        for line in lines:
            answer = orjson.loads(line)
            self.metrics.probes.labels(answer["server"], str(answer["ok"]).lower()).inc()

    # Looking after what came in

    def forget(
        self, name: str, prediction_id: str = "", entity_id: str = "", environment: str = "production"
    ) -> dict[str, int]:
        """Remove the rows and labels of one prediction, or of all about somebody. Profiles and findings stay."""
        model = self.registry.get(environment, name)
        now = self.clock.now()
        if prediction_id:
            return {"predictions": forget_predictions(self.store, self.ingest.forgotten, model, [prediction_id], now)}
        return {"predictions": forget_entity(self.store, self.ingest.forgotten, model, entity_id, now)}

    def replay_dead_letters(self, reason: str = "") -> dict[str, int]:
        """Take in the dead letters that the rules allow by now; ``reason``: only of batches that have such.

        Raises AuditError while somebody else repairs or replays.
        """
        now = self.clock.now()
        with self._repairing(now) as alone:
            return self.dead_letters.replay(reason, now, alone)

    def dead_letter_groups(self) -> list[dict[str, Any]]:
        """How many dead letters there are by source and reason, and an example."""
        return self.dead_letters.groups()

    def dead_letter_lines(self, reason: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """The latest dead letters, with what they held."""
        return self.dead_letters.lines(reason, limit)

    def audit(self, start: datetime | None = None, end: datetime | None = None, *, repair: bool) -> dict[str, Any]:
        """Hold what is kept against what was counted when it came in: of a span of time, the last day if none is given.

        Repairing takes batches in again from Kafka, or makes their profiles from their rows where all of them are kept.
        Raises AuditError while somebody else repairs.
        """
        now = self.clock.now()
        until = min(end or now, now)
        since = start or until - DAY
        if not repair:
            found = self.auditor.audit(since, until, now, repair=False)
        else:
            with self._repairing(now) as alone:
                found = self.auditor.audit(since, until, now, repair=True, alone=alone)
        return {"from": since.isoformat(), "to": until.isoformat(), "disagreements": [d.to_dict() for d in found]}

    def audit_lately(self, now: datetime) -> None:
        """Audit the last day and repair what can be, unless somebody else does."""
        with contextlib.suppress(AuditError):
            found = self.audit(now - DAY, now, repair=True)["disagreements"]
            self.metrics.disagreements.set(len(found))
            for each in found:
                log.error("the auditor found a disagreement", **each)

    def remove_old(self, now: datetime) -> dict[str, int]:
        """Remove what was kept for long enough, unless somebody else does. Gives how many rows went, by table."""
        self.refresh_models(now)
        with self._alone("", "", "retention", now) as granted:
            removed = self.keeper.run(now, self._seen_until(now), self._judged_until) if granted else {}
            if granted:  # of forgotten predictions there may be rows that were just being taken in then
                for place in self.store.query("forgotten_lately", since=now - DAY).iter_rows():
                    remove_forgotten(self.store, *place)
                watched = (watched_for(model.spec, "labels") for model in self.registry.models())
                self.ledger.remove_late_claims(now - max(watched, default=DAY) - DAY)
        gone = {table: rows for table, rows in removed.items() if rows}
        if gone:
            log.info("removed what was kept for long enough", **gone)
        return gone

    def _judged_until(self, model: Model) -> datetime:
        """Where the first window begins that is still to be judged."""
        if model.since is None:
            return EPOCH
        names = ((length, _kind_name("traffic", length)) for length in model.spec.windows)
        lasts = ((length, self.ledger.last_finished(model.environment, model.name, name)) for length, name in names)
        return min(next_start(length, last, model.since) for length, last in lasts)

    @contextlib.contextmanager
    def _repairing(self, now: datetime) -> Iterator[Callable[[], bool]]:
        """Nobody else repairs or replays while the context lasts; what it gives says so again, and holds on to it.

        Raises AuditError while somebody else does.
        """
        claim = Claim("", "", "audit", EPOCH, EPOCH, f"{self._owner}-{uuid.uuid4().hex[:8]}")
        if not self.ledger.claim(claim, now, LEASE):
            raise AuditError("another process repairs or replays at this moment; try again soon")
        try:
            yield lambda: self.ledger.renew(claim, self.clock.now(), LEASE)
        finally:
            self.ledger.release(claim)

    @contextlib.contextmanager
    def _open_logs(self) -> Iterator[Read]:
        from monitor.sources.kafka import RangeReader

        spec = self.config.sources.kafka
        if spec is None:
            raise SourceError("no Kafka is configured here")
        with RangeReader(spec) as reader:

            def read(source: str, first: int, last: int) -> Iterator[Message]:
                _, topic, partition, identity = source.split("/")
                return reader.read(Place(topic, int(partition)), identity, first, last)

            yield read

    # Judging

    def refresh_models(self, now: datetime) -> None:
        """See what other processes have learned of the models, and which dead letters they have replayed."""
        if self.config.store.clickhouse is not None:
            self.registry.refresh(now)
            self.ingest.refresh()

    def judge_due(self, now: datetime) -> int:
        """Judge every window that has become due, oldest first, each once whoever else is judging; gives how many."""
        seen = self._seen_until(now)
        self.refresh_models(now)  # in this order: what is told to be taken in has its models told before
        judged = 0
        for model in self.registry.models():
            for kind in ("traffic", "labels"):
                for length in model.spec.windows:
                    judged += self._judge_in_order(model, kind, length, now, seen, MOST_WINDOWS_A_TICK - judged)
        return judged

    def judge_late(self, now: datetime) -> int:
        """Judge windows again whose events came late, once they are left alone; gives how many.

        Their findings take the place of the earlier ones. What was found before is not told again, nor taken back.
        """
        return sum(self._judge_again(late, now) for late in self.late.due(now)[:MOST_WINDOWS_A_TICK])

    def follow(self, now: datetime) -> None:
        """See whether actions had their effect, and which accused versions have gone."""
        seen = self._seen_until(now)  # an effect that waits to be read in Kafka is not missing
        if seen < self._followed:
            return
        self._followed = seen
        for model in self.registry.models():
            self.desk.follow(seen, _rules(model))
        self.metrics.open_incidents.set(len(self.ledger.open_incidents()))

    def deliver(self, now: datetime) -> int:
        """Send the messages that are due."""
        sent = self.desk.deliver(now)
        self.metrics.deliveries.inc(sent)
        return sent

    def refresh_alerts(self, now: datetime) -> None:
        """Tell the receivers that forget of all that is firing."""
        self.desk.refresh(now)

    def tick(self, now: datetime) -> None:
        """All of the above, once, in order."""
        self.judge_due(now)
        self.judge_late(now)
        self.follow(now)
        self.deliver(now)

    def _seen_until(self, now: datetime) -> datetime:
        """Up to when all that arrived is taken in; later windows would be judged on a part of their events."""
        kafka = self.config.sources.kafka
        if kafka is None:
            return now
        progress: dict[str, datetime] = dict(self.store.query("progress").iter_rows())
        for topic in kafka.topics:
            self.metrics.taken_in_until.labels(topic).set(progress.get(topic, EPOCH).timestamp())
        return min(now, *(progress.get(topic, EPOCH) for topic in kafka.topics))

    def _judge_in_order(
        self, model: Model, kind: str, length: timedelta, now: datetime, seen: datetime, most: int
    ) -> int:
        """Judge the due windows of one kind and length, up to the first that somebody else has or that fails."""
        if model.since is None:
            return 0
        ready = seen - LATE_ALLOWANCE - (model.spec.label_delay if kind == "labels" else timedelta(0))
        name = _kind_name(kind, length)
        last = self.ledger.last_finished(model.environment, model.name, name)
        judged = 0
        told = self.metrics.judged_until.labels(model.environment, model.name, kind, format_duration(length))
        told.set((last or model.since).timestamp())
        first = next_start(length, last, model.since)
        for start, end in due(first, length, ready):
            window = Window(model.environment, model.name, start, end)
            if judged >= most or not self._judge_one(window, kind, name, now, first):
                break
            told.set(end.timestamp())
            judged += 1
        return judged

    def _judge_one(self, window: Window, kind: str, name: str, now: datetime, first: datetime) -> bool:
        """Judge a window, unless somebody else does. A failure is tried again at the next tick, but not for ever."""
        claim = Claim(window.environment, window.model, name, window.start, window.end, self._owner)
        if not self.ledger.claim(claim, now, LEASE, first):
            return False
        model = self.registry.get(window.environment, window.model)
        started = time.perf_counter()
        try:
            measure = self.judge.traffic if kind == "traffic" else self.judge.labels
            findings = measure(model, window, now)
            taken = self.desk.take(now, _rules(model), findings, window.end - window.start, claim)
        except Exception as error:
            self.metrics.judge_failures.inc()
            log.exception("window not judged", model=window.model, kind=name, start=window.start.isoformat())
            self._failures[claim] = self._failures.get(claim, 0) + 1
            if isinstance(error, StoreError | LedgerError) or self._failures[claim] < MOST_ATTEMPTS:
                self.ledger.release(claim)
                return False
            findings = self.judge.failed(window, kind, error, now)
            taken = self.desk.take(now, _rules(model), findings, window.end - window.start, claim)
        self._failures.pop(claim, None)
        if not taken:
            log.warning("window left to another judge", model=window.model, kind=name, start=window.start.isoformat())
            return False
        self.metrics.judge_seconds.observe(time.perf_counter() - started)
        self.metrics.windows.labels(model.name, kind).inc()
        return True

    def _judge_again(self, late: LateWindow, now: datetime) -> bool:
        """Judge a window again, unless somebody else does, or did with the events that there are by now."""
        window, kind = late.judged.window, late.judged.kind
        model = self.registry.find(window.environment, window.model)
        length = window.end - window.start
        if model is None or not is_due(model, window):
            return False  # it is not judged any more, or the model is not known here yet
        name = _kind_name(kind, length)
        claim = Claim(
            window.environment, window.model, late_kind(name, late.marks), window.start, window.end, self._owner
        )
        if not self.ledger.is_finished(replace(claim, kind=name)):
            return False
        if not self.ledger.claim(claim, now, LEASE, window.start):
            return False
        about = {"model": window.model, "kind": name, "start": window.start.isoformat()}
        is_shortest = kind == "traffic" and length == min(model.spec.windows)
        try:
            again = self.judge.again(model, late.judged, now)
            findings, more = (again.findings, again.more) if again else ([], None)
            taken = self.desk.take_again(now, _rules(model), findings, claim, more if is_shortest else None)
        except Exception as error:
            self.metrics.judge_failures.inc()
            log.exception("window not judged again", **about)
            self._failures[claim] = self._failures.get(claim, 0) + 1
            if isinstance(error, StoreError | LedgerError) or self._failures[claim] < MOST_ATTEMPTS:
                self.ledger.release(claim)
                return False
            # What was found before the late events came still holds for those without them.
            again, taken = None, self.desk.take_again(now, _rules(model), [], claim, None)
        self._failures.pop(claim, None)
        if again is None or not taken:
            return False
        save_judgement(self.store, again.judgement, model, now)
        log.info("judged again", rows=again.more, **about)
        self.metrics.windows.labels(model.name, f"late {kind}").inc()
        return True

    # What people and pipelines ask for; all of it as JSON can hold it, so that it can also come over the API

    def register_reference(
        self, name: str, table: pl.DataFrame, label: str, version: str = "", environment: str = "production"
    ) -> dict[str, Any]:
        """Keep a table as what a model (or one version of it) is compared with.

        Raises LayoutError or TableError.
        """
        model = self._model_or_new(environment, name)
        model = self.references.from_table(model, table, label, version, self.clock.now())
        layout = model.layout
        watched = (
            [f.name for f in layout.features if model.references[version].counts[layout.spans[f.name]].any()]
            if layout
            else []
        )
        return {"model": name, "reference": label, "version": version, "rows": table.height, "features": watched}

    def register_reference_file(self, name: str, path: Path, version: str, environment: str) -> dict[str, Any]:
        """Keep a table in a file as what a model is compared with. Raises LayoutError or TableError."""
        return self.register_reference(name, read_table(path), path.name, version, environment)

    def evaluate(self, name: str, at: datetime | None = None, environment: str = "production") -> dict[str, Any]:
        """Judge, now, the windows that end at a time (accuracy: ``label_delay`` before). Nothing is sent to anyone.

        Without a time, the windows end at the last minute that has traffic.
        """
        model = self.registry.get(environment, name)
        end = min(at or self._last_minute(model), self.clock.now())
        findings: list[Finding] = []
        for length in model.spec.windows:
            window = Window(environment, name, end - length, end)
            findings += self.judge.traffic(model, window, self.clock.now())
            model = self.registry.get(environment, name)
            matured = end - model.spec.label_delay
            window = Window(environment, name, matured - length, matured)
            findings += self.judge.labels(model, window, self.clock.now())
        verdicts = self.desk.verdicts(_rules(model), findings)
        return {
            "model": name,
            "environment": environment,
            "at": end.isoformat(),
            "findings": [finding_to_dict(f) for f in worst_first(findings, model.spec.importance)],
            "verdicts": verdicts,
        }

    def fleet(self, name: str, at: datetime | None = None, environment: str = "production") -> list[dict[str, Any]]:
        """Which version served on which server up to a time."""
        model = self.registry.get(environment, name)
        return [place.to_dict() for place in fleet(self.store, model, at or self.clock.now())]

    def budget(self, name: str, environment: str = "production") -> dict[str, Any]:
        """Where the model's budget of false alarms goes."""
        return spending(self.store, self.desk.policies, _rules(self.registry.get(environment, name)))

    def findings(
        self, name: str, since: datetime | None = None, limit: int = 1000, environment: str = "production"
    ) -> list[dict[str, Any]]:
        """The latest findings of a model, newest windows first."""
        self.registry.get(environment, name)
        found = latest_findings(self.store, environment, name, since or BEGINNING, limit)
        return [finding_to_dict(f) for f in found]

    def replay(
        self, name: str, start: datetime, end: datetime, environment: str = "production", other: bytes = b""
    ) -> dict[str, Any]:
        """What the policies, or those of another configuration, would have made of a span of the past.

        Nothing is kept or sent. ``other`` is as ``rules_to_send`` gives it. Raises ConfigError or ReplayError.
        """
        model = self.registry.get(environment, name)
        rules = read_rules(other) if other else None
        policies = rules.policies if rules else self.config.policies
        tried = rules.models.get(name) if rules else None
        return replay_past(self.store, self.judge, model, policies, tried, start, end, self.clock.now(), _rules)

    def export(self, name: str, start: datetime, end: datetime, environment: str = "production") -> bytes:
        """The kept feature rows of a span as a Parquet file."""
        model = self.registry.get(environment, name)
        sql = (
            f"SELECT * FROM `{view_name(model)}` WHERE timestamp >= {{start:DateTime64(3, 'UTC')}} "  # noqa: S608 - the name is made here
            "AND timestamp < {end:DateTime64(3, 'UTC')} ORDER BY timestamp, prediction_id"
        )
        buffer = io.BytesIO()
        self.store.select(sql, start=start, end=end).write_parquet(buffer)
        return buffer.getvalue()

    def servers(self, at: datetime | None = None, environment: str = "production") -> list[dict[str, Any]]:
        """Every server with what serves there, and of the last hour its checks, its clock and the events it lost."""
        now = at or self.clock.now()
        serving: dict[str, list[dict[str, Any]]] = {}
        for model in self.registry.models():
            if model.environment == environment:
                for place in fleet(self.store, model, now):
                    if place.serving:
                        what = {"model": model.name, "version": place.version, "since": place.first_seen.isoformat()}
                        serving.setdefault(place.server, []).append(what)
        probes = self.store.query("probes", environment=environment, start=now - HOUR, end=now + LATE_ALLOWANCE)
        health = {r["server"]: r for r in probes.iter_rows(named=True)}
        drops = self.store.query("client_drops", start=now - HOUR, end=now)
        dropped: dict[str, int] = {}
        for r in drops.filter(environment=environment).iter_rows(named=True):
            dropped[r["server"]] = dropped.get(r["server"], 0) + int(r["dropped"])
        clocks = read_clocks(self.store, environment, now - HOUR, now + LATE_ALLOWANCE)
        answer = []
        for name in sorted({*serving, *health, *dropped, *self.config.servers}):
            checks = health.get(name)
            row: dict[str, Any] = {"server": name, "serves": serving.get(name, [])}
            if checks:
                row |= {k: checks[k] for k in ("probes", "failures", "latency_p95_ms")}
                row["last_check"] = checks["last_seen"].isoformat()
            if name in dropped:
                row["dropped"] = dropped[name]
            if name in clocks:
                row |= {"arrival_delay_seconds": clocks[name].delay, "clock_ahead_seconds": clocks[name].skew}
            answer.append(row)
        return answer

    def alerts(self, after: int = 0, limit: int = 500) -> dict[str, Any]:
        """What is firing, and the time line after an entry."""
        timeline = self.ledger.timeline(after=after, limit=limit)
        return {
            "firing": [i.to_dict() for i in self.ledger.open_incidents()],
            "timeline": [{"id": e.id, **e.as_line()} for e in timeline],
        }

    def check(self) -> None:
        """Raise whatever is wrong with the store, the ledger, or a log that is read here."""
        self.store.select("SELECT 1")
        self.ledger.open_incidents()
        for source, problem in self.ingest.watch.stopped.items():
            raise TooManyDeadLettersError(f"{source}: {problem}")

    def models(self) -> list[dict[str, Any]]:
        """The models, and what is known of each."""
        return [
            {
                "environment": m.environment,
                "model": m.name,
                "declared": m.name in self.config.models,
                "task": m.spec.task,
                "owner": m.spec.owner,
                "features": {n: str(f.kind) for n, f in m.spec.features.items()},
                "segments": list(m.spec.segments),
                "label_delay_seconds": int(m.spec.label_delay.total_seconds()),
                "windows_seconds": [int(w.total_seconds()) for w in m.spec.windows],
                "references": sorted(r.name for r in m.references.values()),
                "layout": m.layout.id if m.layout else None,
            }
            for m in self.registry.models()
        ]

    def status(self) -> dict[str, Any]:
        """What is kept, and what goes on."""
        counts = self.store.query("counts").to_dicts()[0]
        return {
            "now": self.clock.now().isoformat(),
            "rows": counts,
            "models": self.models(),
            "incidents": [i.to_dict() for i in self.ledger.open_incidents()],
        }

    def _register_declared_references(self) -> None:
        for name, spec in self.config.models.items():
            if spec.reference is None or spec.reference.file is None:
                continue
            path = spec.reference.file
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
                label = f"{path.name}@{digest}"
                known = self.registry.get("production", name).references.get("")
                if known is None or known.name != label:
                    self.register_reference(name, read_table(path), label)
            except (OSError, TableError, LayoutError) as error:
                log.error("reference not registered", model=name, file=str(path), reason=str(error))

    def _may_learn(self, environment: str, name: str, now: datetime) -> contextlib.AbstractContextManager[bool]:
        """Whether the layout of a model may be made here; no other process may while the context lasts."""
        return self._alone(environment, name, "layout", now)

    def may_import(self, what: str) -> contextlib.AbstractContextManager[bool]:
        """Whether some files may be imported here; no other process may while the context lasts, or for a minute."""
        return self._alone("", "", f"import:{what}", self.clock.now(), IMPORT_LEASE)

    @contextlib.contextmanager
    def _alone(self, environment: str, name: str, what: str, now: datetime, lease: timedelta = LEASE) -> Iterator[bool]:
        """Whether something may be done here; no other process may while the context lasts."""
        claim = Claim(environment, name, what, EPOCH, EPOCH, self._owner)
        granted = self.ledger.claim(claim, now, lease)
        try:
            yield granted
        finally:
            if granted:
                self.ledger.release(claim)

    def _model_or_new(self, environment: str, name: str) -> Model:
        if name in self.config.models or any(
            (m.environment, m.name) == (environment, name) for m in self.registry.models()
        ):
            return self.registry.get(environment, name)
        return Model(environment, name, ModelSpec())

    def _last_minute(self, model: Model) -> datetime:
        span = self.store.query("event_span", environment=model.environment, model=model.name)
        if not span["profile_rows"][0]:
            return self.clock.now()
        last: datetime = span["last_minute"][0]
        return last + timedelta(minutes=1)


def import_file(service: Any, path: Path, chunk_bytes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Take a file of events in, in chunks that end at line ends, and give the bytes done and the answer for each.

    A chunk is known by its place, by the first lines of the file and of the chunk, and by what it held before. So
    importing the same file again, after an interruption, or after more was appended to it, changes nothing that is
    already there.
    """
    with path.open("rb") as file:
        first_line = file.readline().rstrip()  # the last line of a file may not be ended yet
        file.seek(0)
        offset = 0
        line = 1
        while chunk := file.read(chunk_bytes):
            chunk += file.readline()
            named = b"\x1f".join((b"%d" % offset, first_line, chunk.partition(b"\n")[0].rstrip()))
            answer = dict(service.import_chunk(chunk, hashlib.sha256(named).hexdigest()[:32]))
            for rejected in answer["rejected"]:
                rejected["line"] += line - 1
            offset += len(chunk)
            line += chunk.count(b"\n")
            yield offset, answer


def _lines(body: bytes, content_type: str) -> Sequence[bytes]:
    """The lines of a body. A table that cannot be read is its sender's to mend, so it becomes no dead letter."""
    if not is_table(body, content_type):
        return split_lines(body)
    table = TableLines(body)
    table.check()
    return table


def _kind_name(kind: str, length: timedelta) -> str:
    """What is judged of windows of a length, as claims name it."""
    return f"{kind}:{int(length.total_seconds())}s"


def _ledger_password(config: Config) -> str | None:
    env, file = config.store.ledger_password_env, config.store.ledger_password_file
    return read_secret(env, file) if env or file else None


def _rules(model: Model) -> ModelRules:
    spec = model.spec
    return ModelRules(model.environment, model.name, spec.false_alarms_per_week, min(spec.windows), spec.importance)
