"""The ledger: incidents, time line, actions, messages and evaluations, in a relational database.

Open this file first. ``writing`` gives a ``Book`` for one transaction; the rest are single statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from alerts.action import Action
from alerts.incidents import Incident
from alerts.ledger.book import Book
from alerts.ledger.database import READS_ONLY, migrate, open_database
from alerts.ledger.evaluations import (
    LATE_CLAIMS,
    claim_evaluation,
    is_finished,
    last_finished,
    release_evaluation,
    remove_late_claims,
    renew_evaluation,
)
from alerts.ledger.records import (
    BadCallbackError,
    Claim,
    LedgerError,
    TimelineEntry,
    UnknownActionError,
    WrongTokenError,
)
from alerts.ledger.schema import EPOCH

__all__ = [
    "LATE_CLAIMS",
    "BadCallbackError",
    "Book",
    "Claim",
    "Ledger",
    "LedgerError",
    "TimelineEntry",
    "UnknownActionError",
    "WrongTokenError",
]


class Ledger:
    """What was decided and done. Safe to use from several threads and processes at once.

    Whatever needs the database raises LedgerError while it cannot be reached, and works again once it is back.

    url
        ``sqlite:///path/of/file.db``, whose folder must exist, or ``postgresql://user@host:port/database``.
    password
        The user's password, where the server asks for one.
    """

    def __init__(self, url: str, password: str | None = None) -> None:
        self._engine = open_database(url, password)

    def create(self) -> None:
        """Make the tables, or bring them up to date. Harmless when they are."""
        migrate(self._engine)

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """A transaction that may write. Keep it short: writers take turns."""
        with self._engine.begin() as connection:
            yield Book(connection)

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """A transaction that only reads, and makes nobody wait."""
        with self._engine.connect().execution_options(**{READS_ONLY: True}) as connection, connection.begin():
            yield Book(connection)

    def timeline(
        self, after: int = 0, model: str | None = None, limit: int = 500, *, newest_first: bool = False
    ) -> list[TimelineEntry]:
        """Entries with an id above ``after``, in the order in which they were written down, or the other way round."""
        with self.reading() as book:
            return book.timeline(after, model, limit, newest_first=newest_first)

    def open_incidents(self) -> list[Incident]:
        """The incidents that are firing, oldest first."""
        with self.reading() as book:
            return book.firing()

    def actions(self, environment: str, model: str) -> list[Action]:
        """The actions of a model, oldest first."""
        with self.reading() as book:
            return book.actions(environment, model)

    def claim(self, claim: Claim, now: datetime, lease: timedelta, first: datetime = EPOCH) -> bool:
        """Whether a window may be judged until the lease ends; see ``claim_evaluation``. ``Book.finish`` ends it."""
        with self.writing() as book:
            return claim_evaluation(book.connection, claim, now, lease, first)

    def renew(self, claim: Claim, now: datetime, lease: timedelta) -> bool:
        """Hold on to a claim until another lease ends. False when it was lost meanwhile."""
        with self.writing() as book:
            return renew_evaluation(book.connection, claim, now, lease)

    def release(self, claim: Claim) -> None:
        """The window could not be judged; see ``release_evaluation``."""
        with self.writing() as book:
            release_evaluation(book.connection, claim)

    def remove_late_claims(self, until: datetime) -> int:
        """Remove claims to judge windows again that ended before a time; gives how many."""
        with self.writing() as book:
            return remove_late_claims(book.connection, until)

    def is_finished(self, claim: Claim) -> bool:
        """Whether the window of a claim is judged, by whomever."""
        with self.reading() as book:
            return is_finished(book.connection, claim)

    def last_finished(self, environment: str, model: str, kind: str) -> datetime | None:
        """The end of the latest window that is judged; None when none is."""
        with self.reading() as book:
            return last_finished(book.connection, environment, model, kind)
