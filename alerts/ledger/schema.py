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
    Column("key", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("watch", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("segment", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Instant, nullable=False),
    Column("drifted_in_a_row", Integer, nullable=False),
    Column("ok_in_a_row", Integer, nullable=False),
    Column("features", JSON, nullable=False),
    Column("value", Float),
    Column("baseline_version", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("last_window_end", Instant, nullable=False),
    Index("incidents_of_model", "environment", "model", "state"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("event", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Index("timeline_of_model", "model", "id"),
)

actions = Table(
    "actions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("incident", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("accused_share", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("effect_within", Span, nullable=False),
    Column("effect_share", Float, nullable=False),
    Column("settle", Span, nullable=False),
    Column("token_hash", Text, nullable=False),
    Column("deadline", Instant),
    # The model's name while the action is in flight, so that the database itself refuses a second one.
    Column("in_flight_for", Text, unique=True),
    Index("actions_of_model", "environment", "model"),
)

reports = Table(
    "reports",
    metadata,
    Column("action", Text, ForeignKey("actions.id"), primary_key=True),
    Column("state", Text, primary_key=True),
    Column("run", Text, primary_key=True),
)

outbox = Table(
    "outbox",
    metadata,
    Column("sequence", Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("expires_at", Instant),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("lease", Text, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Column("delivered_at", Instant),
    Column("status", Integer),
    Column("error", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Index("outbox_due", "state", "next_at"),
    Index("outbox_lane", "endpoint", "environment", "model", "kind", "state", "sequence"),
)

disabled_endpoints = Table(
    "disabled_endpoints",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("disabled_at", Instant, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("start", Instant, primary_key=True),
    Column("end", Instant, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", Instant, nullable=False),
    Column("finished_at", Instant),
)
