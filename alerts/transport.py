"""What is sent, and what came of it: plain values between notifiers and delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. The URL may be a secret: show ``origin`` instead."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_seconds: float
    allow_networks: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the URL.

        >>> Request("https://ci.example:8443/hook?token=secret", {}, b"", 15).origin
        'https://ci.example:8443'
        """
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    status
        HTTP status; None when there was no answer, and ``error`` says why.
    body
        The beginning of the answer's body.
    retry_after
        How long the receiver asks to be left alone.
    """

    status: int | None
    error: str = ""
    body: str = ""
    retry_after: timedelta = timedelta(0)

    @property
    def received(self) -> bool:
        """The receiver took the message: 2xx and nothing else."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more messages."""
        return self.status == 410
