"""The tables of the ledger. The same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A time with its zone, kept as microseconds since 1970 in UTC: exact, and compared the same by every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the library passes it
        """Microseconds of a time. Raises TypeError for a time without a zone."""
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the library passes it
        """The time in UTC."""
        return None if value is None else EPOCH + value * MICROSECOND


class Span(TypeDecorator[timedelta]):
    """A length of time, kept as microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the library passes it
        """Microseconds."""
        return None if value is None else value // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:  # noqa: ARG002 - the library passes it
        """The length of time."""
        return None if value is None else value * MICROSECOND


class Words(TypeDecorator[str]):
    """A text. NUL characters are left out: PostgreSQL does not hold them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the library passes it
        """The text without NUL characters."""
        return None if value is None else value.replace("\0", "")


metadata = MetaData()
Serial = BigInteger().with_variant(Integer, "sqlite")

schema_versions = Table(
    "schema_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("key", Words, primary_key=True),
    Column("policy", Words, nullable=False),
    Column("watch", Words, nullable=False),
    Column("severity", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("version", Words, nullable=False),
    Column("server", Words, nullable=False),
    Column("segment", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("since", Instant, nullable=False),
    Column("features", JSON, nullable=False),
    Column("value", Float),
    Column("baseline_version", Words, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("reason", Words, nullable=False),
    Column("windows", JSON, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("causes", JSON, nullable=False),
    Index("incidents_of_model", "environment", "model", "state"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("event", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("data", JSON, nullable=False),
    Index("timeline_of_model", "model", "id"),
)

actions = Table(
    "actions",
    metadata,
    Column("id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("policy", Words, nullable=False),
    Column("incident", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("version", Words, nullable=False),
    Column("target", Words, nullable=False),
    Column("accused_share", Float, nullable=False),
    Column("state", Words, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("effect_within", Span, nullable=False),
    Column("effect_share", Float, nullable=False),
    Column("settle", Span, nullable=False),
    Column("token_hash", Words, nullable=False),
    Column("deadline", Instant),
    # The model's name while the action is in flight, so that the database itself refuses a second one.
    Column("in_flight_for", Words, unique=True),
    Index("actions_of_model", "environment", "model"),
)

reports = Table(
    "reports",
    metadata,
    Column("action", Words, ForeignKey("actions.id"), primary_key=True),
    Column("state", Words, primary_key=True),
    Column("run", Words, primary_key=True),
)

outbox = Table(
    "outbox",
    metadata,
    Column("sequence", Serial, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("kind", Words, nullable=False),
    Column("endpoint", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("expires_at", Instant),
    Column("state", Words, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("lease", Words, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Column("delivered_at", Instant),
    Column("status", Integer),
    Column("error", Words, nullable=False),
    Column("answer", Words, nullable=False),
    Index("outbox_due", "state", "next_at"),
    Index("outbox_lane", "endpoint", "environment", "model", "kind", "state", "sequence"),
)

disabled_endpoints = Table(
    "disabled_endpoints",
    metadata,
    Column("endpoint", Words, primary_key=True),
    Column("address", Words, primary_key=True),
    Column("disabled_at", Instant, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("environment", Words, primary_key=True),
    Column("model", Words, primary_key=True),
    Column("kind", Words, primary_key=True),
    Column("start", Instant, primary_key=True),
    Column("end", Instant, nullable=False),
    Column("owner", Words, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Column("finished_at", Instant),
)
