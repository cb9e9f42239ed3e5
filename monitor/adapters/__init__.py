"""What other serving stacks log, read as our own events. A file per format; its name is the one in URLs and commands.

An adapter turns foreign bytes into lines of the contract (``monitor/events.py``). It does no input or output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from monitor.decode import Reject
from monitor.durations import parse_duration
from monitor.events import MAX_EVENT_BYTES

WIDEST_ROW = 1000
"""An input of more values a row is an image or an embedding: it is left out of the features."""
LONGEST_WAIT = timedelta(minutes=10)
MOST_EVENTS, MOST_BYTES = 200_000, 128 * 1024 * 1024
"""What one body may become, as our lines: each of its rows repeats what a batch says once."""


def _wait(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= LONGEST_WAIT:
        raise ValueError("must be above 0s and at most 10m; write one such as 60s")
    return value


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KserveSettings(_Settings):
    """How KServe's logger is read.

    version_annotation, version_header
        The annotation of the InferenceService, or the header of the requests, that holds the model's version.
    join_within
        How long a request waits for its response.
    unanswered
        What a request counts as whose response never came: failed, or (for loggers with ``mode: request``) answered.
    """

    version_annotation: str = ""
    version_header: str = ""
    join_within: Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_wait)] = timedelta(minutes=1)
    unanswered: Literal["error", "ok"] = "error"
    most_waiting: Annotated[int, Field(ge=1)] = 100_000
    most_waiting_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024 * 1024


class BentomlSettings(_Settings):
    """How BentoML's monitoring files are read. Their timestamps are local times of this time zone."""

    timezone: ZoneInfo = ZoneInfo("UTC")


class AdapterSettings(_Settings):
    """What foreign formats do not say themselves. The names are by model, in the order of its columns or classes."""

    feature_names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    class_names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    kserve: KserveSettings = KserveSettings()
    bentoml: BentomlSettings = BentomlSettings()


@dataclass(frozen=True)
class Sender:
    """Who sent something, and what they say of it beside it.

    caller, allowed
        Whose key it is, and the models it is for; empty for all.
    """

    model: str = ""
    version: str = ""
    server: str = ""
    environment: str = ""
    caller: str = ""
    allowed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Sender:
        """A sender of whom only is known what it says."""
        return cls(told["model"], told["version"], told["server"], told["environment"])


class RefusedError(Exception):
    """A record that cannot be read. ``reason`` is one of a few words, the message a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FullError(Exception):
    """Too much waits for its other half; the sender should try again later."""


@dataclass
class Translated:
    """What became of foreign bytes.

    identity
        Names the batch, where the format has something to name it by; else it is named by its bytes.
    lines
        Lines of the contract; empty where a record was refused.
    records
        Of each line, which record of the bytes it came from, from 0.
    refused
        The refusals; ``row`` is the place in ``lines``.
    heading
        How many lines of the bytes come before the records and only say how those are read. What is known of a batch
        does not depend on them.
    waiting
        Nothing became of it yet: its other half is missing. It is in memory only.
    alone
        Which half it is, where its other half did not come in time.
    """

    sender: Sender
    identity: str = ""
    lines: list[bytes] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    refused: list[Reject] = field(default_factory=list)
    heading: int = 0
    waiting: bool = False
    alone: str = ""
    _bytes: int = 0

    def add(self, record: int, events: Iterable[Mapping[str, Any]], raw: bytes) -> None:
        """Take the events of a record, or refuse it as a whole."""
        try:
            lines, size = self._fitting(events)
        except RefusedError as refusal:
            self.refuse(record, refusal, raw)
            return
        except RecursionError:
            self.refuse(record, RefusedError("bad_field", "a value is nested too deeply"), raw)
            return
        self.lines += lines
        self.records += [record] * len(lines)
        self._bytes = size

    def _fitting(self, events: Iterable[Mapping[str, Any]]) -> tuple[list[bytes], int]:
        """The lines of some events, and how many bytes there are with those of before. Raises RefusedError."""
        lines: list[bytes] = []
        size = self._bytes
        for event in events:
            lines.append(to_line(event))
            size += len(lines[-1])
            if len(self.lines) + len(lines) > MOST_EVENTS or size > MOST_BYTES:
                limits = f"{MOST_EVENTS:,} events, or {MOST_BYTES // 1024**2} MiB of them"
                raise RefusedError("too_large", f"with this record the body has more than {limits}; send it in parts")
        return lines, size

    def refuse(self, record: int, refusal: RefusedError, raw: bytes) -> None:
        """Say that a record cannot be read."""
        self.refused.append(Reject(len(self.lines), refusal.reason, str(refusal), raw[:MAX_EVENT_BYTES]))
        self.lines.append(b"")
        self.records.append(record)


class Adapter(Protocol):
    """What every adapter has. Its class is named after its file, and is made from the settings."""

    def __init__(self, settings: AdapterSettings) -> None: ...

    def translate(self, body: bytes, headers: Mapping[str, str], sender: Sender, now: float) -> Translated:
        """Foreign bytes as lines of the contract. Rubbish is refused, never an exception.

        headers
            Those of HTTP, with names in lower case.
        now
            Epoch seconds; only for what waits, so that the same bytes always become the same lines.

        Raises FullError.
        """

    def overdue(self, now: float) -> Iterable[Translated]:
        """What has waited long enough for its other half. It is given again until it is settled."""
        del now
        return ()

    def settled(self, translated: Translated) -> None:
        """Hear that something is durable."""
        del translated

    def waiting(self) -> int:
        """How many halves wait for their other half."""
        return 0


def read_json(raw: bytes, what: str) -> Any:
    """A JSON value; NaN and Infinity are read as such, as they are evidence. Raises RefusedError."""
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise RefusedError("not_utf8", f"{what} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise RefusedError("not_json", f"{what} is not JSON: {str(error)[:100]}") from None


def to_line(event: Mapping[str, Any]) -> bytes:
    """An event as a line of the contract; what is None is left out. Raises RecursionError."""
    return json.dumps({k: v for k, v in event.items() if v is not None}, separators=(",", ":")).encode()


def known(value: object, name: str, where: str) -> object:
    """A value that an event cannot be without. Raises RefusedError that says where it could come from."""
    if value is None or value == "":
        raise RefusedError("missing_key", f"{name} is missing; {where}")
    return value
