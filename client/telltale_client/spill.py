"""A folder for batches that could not be sent. Whichever process comes next sends them, each under its own key.

Only files of our own names are looked at. A name says for whom a batch is, so that loggers of several models or places
may share a folder, and none sends what is another one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from pathlib import Path

from telltale_client.batches import Batch

try:
    import fcntl
except ImportError:  # on Windows two processes may send the same batch, which the key makes harmless
    fcntl = None  # type: ignore[assignment]  # looked at where it is used

FORGOTTEN_SECONDS = 3600.0
OURS = re.compile(r"\d{20}-[0-9a-f]{16}-[0-9A-Za-z]+\.(ndjson|part)")


class Spill:
    """Keeps batches as files, oldest first, of at most ``limit`` bytes in all. Several processes may share it.

    owner
        For whom the batches are, in words that the next process finds too. The limit is for all owners together.
    """

    def __init__(self, folder: Path, limit: int, owner: str = "") -> None:
        self._folder = folder
        self._limit = limit
        self._owner = hashlib.sha256(owner.encode("utf-8", "replace")).hexdigest()[:16]
        self._taken: tuple[Path, int] | None = None

    def put(self, batch: Batch) -> bool:
        """Keep a batch. False where there is no room, or the disk does not take it."""
        body = batch.body
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._used() + len(body) > self._limit:
                return False
            whole = self._folder / f"{time.time_ns():020}-{self._owner}-{batch.key}.ndjson"
            part = whole.with_suffix(".part")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)
        except OSError:
            return False
        return True

    def take(self) -> Batch | None:
        """The oldest batch that no other process is about to send; None where there is none."""
        for path in self._files():
            with contextlib.suppress(OSError):
                number = os.open(path, os.O_RDONLY)
                self._taken = path, number
                if _locked(number):
                    lines = tuple(path.read_bytes().split(b"\n"))
                    return Batch(lines, path.stem.rpartition("-")[2], _reported(lines[-1]))
            self.put_back()
        return None

    def remove(self) -> None:
        """The batch that was taken is done with."""
        if self._taken:
            with contextlib.suppress(OSError):
                self._taken[0].unlink(missing_ok=True)
        self.put_back()

    def put_back(self) -> None:
        """The batch that was taken stays, for later or for another process."""
        if self._taken:
            os.close(self._taken[1])
        self._taken = None

    def count(self) -> int:
        """How many batches are kept for this owner."""
        return len(self._files())

    def _files(self) -> list[Path]:
        try:
            return sorted(p for p in self._folder.glob(f"*-{self._owner}-*.ndjson") if _is_ours(p))
        except OSError:
            return []

    def _used(self) -> int:
        used = 0
        for path in filter(_is_ours, self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == ".part" and status.st_mtime < time.time() - FORGOTTEN_SECONDS:
                    path.unlink()  # its process was killed while it wrote
                else:
                    used += status.st_size
        return used


def _is_ours(path: Path) -> bool:
    return OURS.fullmatch(path.name) is not None


def _reported(line: bytes) -> int:
    """How many lost events a line tells of, as the last one of a batch may."""
    if b'"telltale_dropped"' not in line:
        return 0
    try:
        event = json.loads(line)
        return int(event["resources"]["telltale_dropped"]) if event["type"] == "health" else 0
    except (ValueError, TypeError, LookupError):
        return 0


def _locked(number: int) -> bool:
    """Whether this process alone has the file, and nobody has removed it in the meantime."""
    if fcntl is not None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return os.fstat(number).st_nlink > 0
