"""Dead letters: what they are, and how they are taken in after all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import polars as pl

from monitor.ingest import REPLAYED, Ingest, Origin
from monitor.store import Store


class DeadLetters:
    """What was refused."""

    def __init__(self, store: Store, ingest: Ingest) -> None:
        self._store = store
        self._ingest = ingest

    def groups(self) -> list[dict[str, Any]]:
        """How many there are by source and reason, and an example; those that were taken in since left out."""
        return _texts(self._store.query("dead_letter_groups"))

    def lines(self, reason: str, limit: int) -> list[dict[str, Any]]:
        """The latest, with what they held; ``reason`` '' for all."""
        return _texts(self._store.query("dead_letter_lines", reason=reason, limit=limit))

    def replay(self, reason: str, now: datetime, alone: Callable[[], bool]) -> dict[str, int]:
        """Take in those that the rules allow by now. Doing it again changes nothing.

        They come in as of when they had arrived first. All of a batch are looked at together, with those that were
        taken in earlier: a batch's profiles are always made as a whole. It ends early when ``alone`` says that another
        process has taken over.
        """
        taken = 0
        letters = self._store.query("dead_letters_to_replay", reason=reason)
        for (source, batch, received), rows in letters.group_by(["source", "batch", "received"], maintain_order=True):
            if not alone():
                break
            lines = [b""] * (max(rows["row"]) + 1)
            for row, raw in rows.select("row", "raw").iter_rows():
                lines[row] = bytes.fromhex(raw)
            origin = Origin(f"{REPLAYED}{source}", str(batch), received, taken=now)
            for reject in self._ingest.refused(lines, origin):
                lines[reject.row] = b""
            accepted = rows.filter(pl.col("row").map_elements(lambda row: bool(lines[row]), pl.Boolean))  # noqa: B023 - used at once
            fresh = accepted.filter(pl.col("replayed") == 0)
            if fresh.is_empty():
                continue
            self._ingest.note_replay(str(source), str(batch))
            self._ingest.take(lines, origin)
            marks = fresh.select("source", "batch", "row").with_columns(replayed=pl.lit(now))
            self._store.insert("replayed_letters", marks)
            taken += fresh.height
        return {"taken": taken, "left": sum(group["lines"] for group in self.groups())}


def _texts(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows.iter_rows(named=True)
    ]
