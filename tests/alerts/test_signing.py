"""Standard Webhooks signatures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerts.signing import SignatureError, secret_bytes, signed_headers, verify

PUBLISHED_KEY = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = secret_bytes(f"whsec_{PUBLISHED_KEY}")
AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'


def test_the_published_signature() -> None:
    """From the tests of standard-webhooks."""
    assert signed_headers(KEY, "msg_p5jXN8AQM9LWM0D4loKWxJek", AT, BODY) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(st.binary(min_size=1, max_size=64), st.text(max_size=200))
def test_the_reference_library_signs_the_same(key: bytes, text: str) -> None:
    body = text.encode("utf-8", "replace").decode()
    signature = Webhook(key).sign(msg_id="msg_1", timestamp=AT, data=body)
    assert signed_headers(key, "msg_1", AT, body.encode())["webhook-signature"] == signature


def test_the_reference_library_verifies_what_is_signed_now() -> None:
    headers = signed_headers(KEY, "msg_1", datetime.now(UTC), BODY)
    assert Webhook(PUBLISHED_KEY).verify(BODY, headers) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Webhook(PUBLISHED_KEY).verify(BODY + b" ", headers)


def test_the_time_of_another_zone_is_converted() -> None:
    berlin = AT.astimezone(timezone(timedelta(hours=1)))
    assert signed_headers(KEY, "msg_1", berlin, BODY) == signed_headers(KEY, "msg_1", AT, BODY)


def test_header_names_may_have_any_case_and_signatures_be_several() -> None:
    headers = {k.title(): v for k, v in signed_headers(KEY, "msg_1", AT, BODY).items()}
    headers["Webhook-Signature"] = "v1a,xyz v1,AAAA " + headers["Webhook-Signature"]
    assert verify(KEY, headers, BODY, AT) == "msg_1"


@pytest.mark.parametrize("minutes", [-5, 5])
def test_five_minutes_are_tolerated_and_no_more(minutes: int) -> None:
    headers = signed_headers(KEY, "msg_1", AT, BODY)
    now = AT + timedelta(minutes=minutes)
    assert verify(KEY, headers, BODY, now) == "msg_1"
    with pytest.raises(SignatureError, match="timestamp"):
        verify(KEY, headers, BODY, now + timedelta(seconds=1 if minutes > 0 else -1))


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "9" * 30},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,\u00e9"},
        {"webhook-signature": "v2,g0hM9SsE"},
    ],
)
def test_anything_changed_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(SignatureError):
        verify(KEY, signed_headers(KEY, "msg_1", AT, BODY) | changed, BODY, AT)


def test_another_key_another_body_and_no_headers_are_refused() -> None:
    headers = signed_headers(KEY, "msg_1", AT, BODY)
    for key, body, given_headers in ((b"other", BODY, headers), (KEY, BODY + b" ", headers), (KEY, BODY, {})):
        with pytest.raises(SignatureError):
            verify(key, given_headers, body, AT)


def test_a_secret_that_is_not_base64_is_named_and_not_shown() -> None:
    with pytest.raises(ValueError, match="not base64") as caught:
        secret_bytes("whsec_hunter2!")
    assert "hunter2" not in str(caught.value)
