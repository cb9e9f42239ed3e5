"""Dead letters: when they become too many."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from monitor.config import DeadLetterLimits

LEAST = 100
"""So many must be refused before their share means anything."""
REMEMBERED = 10_000
"""The share is that of about so many lines."""


class TooManyDeadLettersError(Exception):
    """A log is broken, or is not ours: going on would drain it into the dead letters."""


@dataclass(frozen=True)
class _Tally:
    lines: int = 0
    refused: int = 0
    in_a_row: int = 0

    def plus(self, rows: Sequence[int], lines: int) -> tuple[_Tally, int]:
        """With a batch of so many lines, of which these were refused; and the longest row of refused lines so far."""
        run, longest, following = self.in_a_row, 0, 0
        for row in rows:
            run = run + 1 if row == following else 1
            following = row + 1
            longest = max(longest, run)
        half = 2 if self.lines > REMEMBERED else 1
        tally = _Tally(self.lines // half + lines, self.refused // half + len(rows), run if following == lines else 0)
        return tally, longest


class DeadLetterWatch:
    """Counts what is refused of each log, and refuses the batch with which it becomes too much."""

    def __init__(self, limits: DeadLetterLimits) -> None:
        self._limits = limits
        self._tallies: dict[str, tuple[str, _Tally, _Tally]] = {}
        self.stopped: dict[str, str] = {}

    def check(self, source: str, batch: str, rows: Sequence[int], lines: int) -> None:
        """Count a batch. The same again counts once. Raises TooManyDeadLettersError; nothing of it may be kept then.

        rows
            Which lines were refused, counted from 0. Blank lines count neither here nor in ``lines``.
        """
        last_batch, before, after = self._tallies.get(source, ("", _Tally(), _Tally()))
        tally, longest = (before if last_batch == batch else after).plus(rows, lines)
        share = tally.refused / max(tally.lines, 1)
        if longest >= self._limits.in_a_row:
            problem = f"{longest} lines in a row are no events"
        elif tally.refused >= LEAST and share > self._limits.share:
            problem = f"{share:.0%} of the last {tally.lines} lines are no events"
        else:
            self._tallies[source] = (batch, before if last_batch == batch else after, tally)
            self.stopped.pop(source, None)
            return
        self.stopped[source] = problem
        raise TooManyDeadLettersError(
            f"{source} from {batch}: {problem}; nothing more is read there. Mend what writes to it, "
            "or raise sources.kafka.dead_letters and start again"
        )

    def keep_to(self, beginnings: Collection[str]) -> None:
        """Hear how the names of the logs begin that are read here; the others are stopped at elsewhere, if at all."""
        self.stopped = {
            source: problem for source, problem in self.stopped.items() if source.startswith(tuple(beginnings))
        }
