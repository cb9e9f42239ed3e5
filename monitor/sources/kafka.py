"""Kafka, through kafka-python. Nothing else in the project knows that library.

Its own ideas of where to go on are not used: offsets are committed by the intake alone, with a note, and after every
rebalance the intake reads them again and seeks.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Self

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from monitor.config import ConfigError, KafkaSource
from monitor.decode import split_lines
from monitor.secrets import read_secret
from monitor.sources import Mark, Message, Place, SourceError
from monitor.tables import TableLines, is_table

COMMIT_SECONDS = 30
READ_SECONDS = 60
LOOK_SECONDS = 3
SETTINGS: Mapping[str, object] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",  # a place that is not there any more must be noticed, not jumped over
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
    "max_poll_records": 20_000,
    "max_partition_fetch_bytes": 1024 * 1024,  # the client holds so much of every partition that is not read on
    "fetch_max_bytes": 8 * 1024 * 1024,
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 3_000,
    "reconnect_backoff_max_ms": 2_000,
    "metrics_enabled": False,
    "client_id": "telltale",
}
COLLECTED_AFTER = 20_000
"""So many new objects make Python look for circles among them. Each message is two that stay for a while, so by its own
measure (700) it would look through all that wait again and again, which takes longer than reading them."""
OBJECT_BYTES = 200
"""What each line takes beside its bytes."""
LATEST_MS = 4_102_444_800_000  # the year 2100
NDJSON = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")


class _Counter(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Counts rebalances and does nothing else: it is called where no question may be asked of the broker."""

    def __init__(self) -> None:
        self.count = 0

    def on_partitions_assigned(self, assigned: object) -> None:  # noqa: ARG002 - the library passes it
        """Partitions were given."""
        self.count += 1

    def on_partitions_revoked(self, revoked: object) -> None:  # noqa: ARG002 - the library passes it
        """Partitions were taken."""
        self.count += 1


class Kafka:
    """A member of a consumer group. Raises SourceError where the library raises anything of its own."""

    def __init__(self, spec: KafkaSource, password: str = "", bootstrap_seconds: float = 30) -> None:
        gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
        self._counter = _Counter()
        self._identities: dict[str, str] = {}
        with _refused("cannot be reached", spec), _closed_on_failure() as client:
            self._consumer = KafkaConsumer(
                **SETTINGS,
                **_connection(spec, password),
                group_id=spec.group,
                bootstrap_timeout_ms=int(bootstrap_seconds * 1000),
                kafka_client=client,
            )
            self._consumer._cluster.config["allow_auto_create_topics"] = False  # noqa: SLF001 - else the setting is lost
            self._consumer.subscribe(list(spec.topics), listener=self._counter)
        self._spec = spec

    @property
    def rebalances(self) -> int:
        """How often partitions were given or taken, or turned out not to be what they were."""
        return self._counter.count

    def poll(self, seconds: float) -> Mapping[Place, Sequence[Message]]:
        """New messages, in order."""
        self._mend_the_library()
        try:
            with _refused("failed", self._spec):
                polled = self._consumer.poll(timeout_ms=int(seconds * 1000))
        except _PlaceLostError:
            self._counter.count += 1
            return {}
        if self._topics_were_made_anew():
            self._counter.count += 1
            return {}
        return {_place(at): [_message(r) for r in records] for at, records in polled.items()}

    def assignment(self) -> Collection[Place]:
        """The partitions that are this member's."""
        return [_place(at) for at in self._consumer.assignment()]

    def identity(self, place: Place) -> str:
        """The topic's id, of which there is never another."""
        return self._identities.setdefault(place.topic, self._topic_id(place.topic))

    def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset that is still there, and the one that the next message will get."""
        at = _at(place)
        with _refused("does not say what it has", self._spec):
            first: int = self._consumer.beginning_offsets([at])[at]
            following: int = self._consumer.end_offsets([at])[at]
        return first, following

    def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offset that the next message of each partition will get."""
        missing = [t for t in self._spec.topics if not self._consumer._cluster.partitions_for_topic(t)]  # noqa: SLF001 - as last heard
        if missing:  # it would never be read, and would hold all judging up without a word
            servers = ", ".join(self._spec.bootstrap_servers)
            raise SourceError(f"Kafka at {servers} has no topic {', '.join(missing)}; make it")
        with _refused("does not say what it has", self._spec):
            ends = self._consumer.end_offsets([_at(p) for p in places], timeout_ms=LOOK_SECONDS * 1000)
            return {_place(at): end for at, end in ends.items()}

    def position(self, place: Place) -> int:
        """The offset up to which was read."""
        with _refused("does not say what was read", self._spec):
            position: int | None = self._consumer.position(_at(place), timeout_ms=LOOK_SECONDS * 1000)
        return position or 0

    def mark(self, place: Place) -> Mark | None:
        """What the group has committed."""
        with _refused("does not say what is committed", self._spec):
            held = self._consumer.committed(_at(place), metadata=True, timeout_ms=COMMIT_SECONDS * 1000)
        return None if held is None else Mark(held.offset, held.metadata or "")

    def commit(self, marks: Mapping[Place, Mark]) -> None:
        """Commit, and return when it is done."""
        offsets = {_at(place): OffsetAndMetadata(mark.offset, mark.note, -1) for place, mark in marks.items()}
        with _refused("did not take a commit", self._spec):
            self._consumer.commit(offsets, timeout_ms=COMMIT_SECONDS * 1000)

    def seek(self, place: Place, offset: int) -> None:
        """Go on from here."""
        self._consumer.seek(_at(place), offset)

    def pause(self, place: Place) -> None:
        """Give no messages of a partition until it is resumed."""
        self._consumer.pause(_at(place))

    def resume(self, place: Place) -> None:
        """Give messages of a partition again."""
        self._consumer.resume(_at(place))

    def close(self) -> None:
        """Leave the group."""
        with _refused("was left in disorder", self._spec):
            self._consumer.close(autocommit=False, timeout_ms=5_000)

    def _mend_the_library(self) -> None:
        """Keep kafka-python (3.0.12) from forgetting partitions for ever.

        A member that leads its group and takes part in a rebalance because partitions were added forgets the rebalance
        when a poll runs out of time in the middle of it: what it thinks is assigned stays as it was, and nothing is
        fetched. And what is left of a fetch whose partition was paused half read is only taken up again while there is
        no last fetch, which there is, empty.
        """
        coordinator, fetcher = self._consumer._coordinator, self._consumer._fetcher  # noqa: SLF001 - see above
        if coordinator.rejoining:
            coordinator.request_rejoin()
        if not fetcher._next_partition_records:  # noqa: SLF001 - see above
            fetcher._next_partition_records = None  # noqa: SLF001 - see above

    def _topic_id(self, topic: str) -> str:
        known = self._consumer._cluster.topic_id(topic)  # noqa: SLF001 - only there is it kept up to date without asking
        return known.hex[:12] if known is not None and known.int else ""

    def _topics_were_made_anew(self) -> bool:
        now = {topic: self._topic_id(topic) for topic in self._identities}
        changed = any(
            "" not in (now[topic], known) and now[topic] != known for topic, known in self._identities.items()
        )
        if changed:
            self._identities = now
        return changed


class _PlaceLostError(SourceError):
    """The log has no such offset, or nobody has said where to begin."""


@contextlib.contextmanager
def _refused(what: str, spec: KafkaSource) -> Iterator[None]:
    """The library's errors as ours, with the servers' names."""
    try:
        yield
    except (LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError) as error:
        raise _PlaceLostError(type(error).__name__) from error
    except (KafkaError, OSError) as error:
        kind = type(error).__name__
        raise SourceError(f"Kafka at {', '.join(spec.bootstrap_servers)} {what}: {kind}: {error}") from error


@contextlib.contextmanager
def _closed_on_failure() -> Iterator[Any]:
    """Makes the library's network client; the library leaves its thread and sockets behind when a consumer fails."""
    made: list[KafkaNetClient] = []

    def client(**settings: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**settings))
        return made[-1]

    try:
        yield client
    except BaseException:
        for each in made:
            each.close()
        raise


def _connection(spec: KafkaSource, password: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap_servers": list(spec.bootstrap_servers),
        "security_protocol": spec.protocol,
        "ssl_cafile": spec.ca_file,
        "ssl_certfile": spec.certificate_file,
        "ssl_keyfile": spec.key_file,
        "sasl_mechanism": spec.mechanism,
        "sasl_plain_username": spec.username,
        "sasl_plain_password": password or None,
    }
    return {name: str(value) if name.startswith("ssl") and value else value for name, value in settings.items()}


def _message(record: Any) -> Message:
    value = record.value or b""
    arrived_ms = record.timestamp
    if not 0 <= arrived_ms <= LATEST_MS:  # producers may say anything, and a replay must decide the same
        arrived_ms = min(max(arrived_ms, 0), LATEST_MS)
    if value.startswith(b"{") and b"\n" not in value and not record.headers:  # as most are, by far
        return Message(record.offset, arrived_ms, [value], len(value) + OBJECT_BYTES)
    lines = _lines(value, record.headers)
    size = lines.size if isinstance(lines, TableLines) else len(value) + OBJECT_BYTES * len(lines)
    return Message(record.offset, arrived_ms, lines, size)


def _lines(value: bytes, headers: Sequence[tuple[str, bytes]]) -> Sequence[bytes]:
    """One object, many as NDJSON, or a table. The header need not be there; where it is, it is believed."""
    told = _content_type(headers) if headers else b""
    if told.lower().startswith(NDJSON):
        return value.split(b"\n")
    if value and is_table(value, told.decode("latin-1")):
        return TableLines(value)
    return split_lines(value) if b"\n" in value or value[:1] in b"[\xef" else [value]


def _content_type(headers: Sequence[tuple[str, bytes]]) -> bytes:
    return next((content or b"" for name, content in headers if name.lower() == "content-type"), b"")


def _place(at: TopicPartition) -> Place:
    return Place(at.topic, at.partition)


def _at(place: Place) -> TopicPartition:
    return TopicPartition(place.topic, place.partition)


def open_kafka(spec: KafkaSource) -> Kafka:
    """A member of the configured group; the password is read anew each time. Raises SourceError."""
    return Kafka(spec, _password(spec))


class RangeReader:
    """Reads ranges of offsets again, outside of any group, all over one connection. Used by one thread."""

    def __init__(self, spec: KafkaSource) -> None:
        self._spec = spec
        self._consumer: Any = None
        self._unreachable: SourceError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def read(self, place: Place, log: str, first: int, last: int) -> Iterator[Message]:
        """The messages from one offset to another, both included.

        Raises SourceError where Kafka cannot be reached, where the topic is another than the one named ``log``, and
        where messages of the range have been deleted.
        """
        consumer = self._connected()
        at = _at(place)
        with _refused("cannot be read again", self._spec):
            consumer.assign([at])
            begin, end = consumer.beginning_offsets([at])[at], consumer.end_offsets([at])[at]
            known = consumer._cluster.topic_id(place.topic)  # noqa: SLF001 - see ``Kafka``
            consumer.seek(at, first)
        if known is not None and known.int and known.hex[:12] != log:
            raise SourceError(f"topic {place.topic} was made anew, offsets {first} to {last} are of the one before")
        if begin > first or end <= last:
            raise SourceError(f"{place} holds offsets {begin} to {end - 1}, not all from {first} to {last}")
        deadline = time.monotonic() + READ_SECONDS
        while self._position(at) <= last:
            if time.monotonic() > deadline:
                raise SourceError(f"{place} did not give offsets {first} to {last} in {READ_SECONDS} s")
            with _refused("cannot be read again", self._spec):
                polled = consumer.poll(timeout_ms=200)
            for records in polled.values():
                yield from (_message(r) for r in records if r.offset <= last)
                deadline = time.monotonic() + READ_SECONDS

    def _position(self, at: TopicPartition) -> int:
        with _refused("does not say what was read", self._spec):
            position: int = self._consumer.position(at)
        return position

    def _connected(self) -> Any:
        """The consumer. Where it could not be made once, it is not tried again: each time takes long."""
        if self._unreachable is not None:
            raise self._unreachable
        if self._consumer is None:
            try:
                with _refused("cannot be read again", self._spec), _closed_on_failure() as client:
                    settings = {**SETTINGS, **_connection(self._spec, _password(self._spec)), "kafka_client": client}
                    self._consumer = KafkaConsumer(
                        **settings, group_id=None, bootstrap_timeout_ms=COMMIT_SECONDS * 1000
                    )
            except SourceError as error:
                self._unreachable = error
                raise
        return self._consumer


def _password(spec: KafkaSource) -> str:
    if not (spec.password_env or spec.password_file):
        return ""
    try:
        return read_secret(spec.password_env, spec.password_file)
    except ConfigError as error:
        raise SourceError(str(error)) from error
