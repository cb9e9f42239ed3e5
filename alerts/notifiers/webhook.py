"""A signed HTTP request, as Standard Webhooks has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from alerts.notifiers import SecretError, address_of, check_receiver, read_secret
from alerts.signing import secret_bytes, signed_headers
from alerts.transport import Request


@dataclass(frozen=True, slots=True)
class Webhook:
    """Sends messages to a URL. Redirects are not followed, and only 2xx counts as received.

    url
        http or https. It may itself be a secret, so it is never shown whole.
    secret_file, secret_env
        Where the signing secret is, one of both: ``whsec_`` and base64, or any text. Read at every attempt.
    allow_networks
        Networks such as ``10.0.0.0/8`` that the host may be in although they are not public.
    timeout_seconds
        For the whole attempt.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    carries_out_actions: ClassVar[bool] = True
    forgets: ClassVar[bool] = False

    kind: Literal["webhook"]
    url: str = field(repr=False)
    secret_file: str | None = None
    secret_env: str | None = None
    allow_networks: tuple[str, ...] = ()
    timeout_seconds: float = 15

    def __post_init__(self) -> None:
        check_receiver(self.url, self.allow_networks, self.timeout_seconds)
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("needs either secret_file or secret_env")

    @property
    def address(self) -> str:
        """Tells one URL from another without showing it."""
        return address_of(self.url)

    def request(self, message_id: str, body: bytes, now: datetime) -> Request:
        """One attempt to deliver a message. Raises SecretError."""
        headers = {"content-type": "application/json", "user-agent": "telltale"}
        headers |= signed_headers(self._secret(), message_id, now, body)
        return Request(self.url, headers, body, self.timeout_seconds, self.allow_networks)

    def _secret(self) -> bytes:
        text, place = read_secret(self.secret_env, self.secret_file)
        try:
            return secret_bytes(text)
        except ValueError as error:
            raise SecretError(f"{place}: {error}") from None
