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
from alerts.ledger.evaluations import claim_evaluation, finish_evaluation, last_finished, release_evaluation
from alerts.ledger.records import BadCallbackError, TimelineEntry, UnknownActionError, WrongTokenError

__all__ = ["BadCallbackError", "Book", "Ledger", "TimelineEntry", "UnknownActionError", "WrongTokenError"]


class Ledger:
    """What was decided and done. Safe to use from several threads and processes at once.

    url
        A database URL as SQLAlchemy has them. SQLite: the folder of the file must exist.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)

    def create(self) -> None:
        """Make the tables, or bring them up to date. Harmless when they are."""
        migrate(self._engine)

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """A transaction that may write. Keep it short: on SQLite others wait for it."""
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

    def claim(
        self,
        environment: str,
        model: str,
        kind: str,
        start: datetime,
        end: datetime,
        owner: str,
        now: datetime,
        lease: timedelta,
    ) -> bool:
        """Whether the owner may judge a window until the lease ends; see ``claim_evaluation``."""
        with self._engine.begin() as connection:
            return claim_evaluation(connection, environment, model, kind, start, end, owner, now, lease)

    def finish(self, environment: str, model: str, kind: str, start: datetime, now: datetime) -> None:
        """The window is judged, and will not be again."""
        with self._engine.begin() as connection:
            finish_evaluation(connection, environment, model, kind, start, now)

    def release(self, environment: str, model: str, kind: str, start: datetime, owner: str) -> None:
        """The owner could not judge the window; see ``release_evaluation``."""
        with self._engine.begin() as connection:
            release_evaluation(connection, environment, model, kind, start, owner)

    def last_finished(self, environment: str, model: str, kind: str) -> datetime | None:
        """The end of the latest window that is judged; None when none is."""
        with self.reading() as book:
            return last_finished(book.connection, environment, model, kind)
