"""Signatures of messages, as Standard Webhooks 1.0 has them: HMAC-SHA256, version ``v1``."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

PREFIX = "whsec_"
TOLERANCE = timedelta(minutes=5)


class SignatureError(ValueError):
    """The message is not to be believed: unsigned, signed by someone else, or too old."""


def secret_bytes(text: str) -> bytes:
    """The key in a secret: base64 after ``whsec_``, else the text itself. Raises ValueError, without the secret.

    >>> secret_bytes("whsec_aGVsbG8="), secret_bytes("hello")
    (b'hello', b'hello')
    """
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {PREFIX} in the secret is not base64") from None


def signed_headers(secret: bytes, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers that go with a body. ``at`` is the time of this attempt, to the second."""
    timestamp = str(int(at.timestamp()))
    signature = base64.b64encode(_mac(secret, message_id, timestamp, body)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """The id of a message that was signed with the secret within five minutes of ``now``; for receivers.

    It does not know whether the same message came before: a receiver must remember the ids. Raises SignatureError.

    >>> at = datetime(2026, 1, 31, tzinfo=UTC)
    >>> verify(b"key", signed_headers(b"key", "msg_1", at, b"{}"), b"{}", at)
    'msg_1'
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (given[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        at = datetime.fromtimestamp(int(timestamp), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        raise SignatureError("needs the headers webhook-id, webhook-timestamp and webhook-signature") from None
    if abs(now - at) > TOLERANCE:
        raise SignatureError(f"the timestamp is more than {TOLERANCE} away from now")
    expected = b"v1," + base64.b64encode(_mac(secret, message_id, timestamp, body))
    if not any(hmac.compare_digest(expected, one.encode()) for one in signatures.split(" ")):
        raise SignatureError("no signature fits")
    return message_id


def _mac(secret: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
