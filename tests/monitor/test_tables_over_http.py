"""Tables as bodies of requests: taken in as lines are, or refused as a whole with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
import urllib3
from arrow import stream, table_of
from given import NOON, ServiceMaker, prediction

from monitor.running import listening, serve
from monitor.service import Service

ARROW = "application/vnd.apache.arrow.stream"
Send = Callable[[bytes], tuple[int, Any]]


@pytest.fixture
def service(make_service: ServiceMaker) -> Service:
    return make_service()


@pytest.fixture
def send(service: Service) -> Iterator[Send]:
    def post(body: bytes) -> tuple[int, Any]:
        answer = pool.request("POST", f"{url}/v1/events", body=body, headers={"Content-Type": ARROW})
        return answer.status, json.loads(answer.data)

    with listening("127.0.0.1", 0) as (listener, url), serve(service, listener, url):
        pool = urllib3.PoolManager(retries=False, timeout=30)
        yield post
        pool.clear()


def events(count: int) -> list[dict[str, Any]]:
    return [prediction(n, NOON) for n in range(count)]


def rows(service: Service) -> tuple[int, int]:
    held = service.status()["rows"]
    return held["predictions"], held["dead_letters"]


def test_a_table_is_taken_in_and_each_bad_row_told(service: Service, send: Send) -> None:
    given = events(50)
    given[7]["prediction_id"] = ""
    body = stream(table_of(given), rows=20, compression="zstd")
    status, answer = send(body)
    assert status == 200
    assert answer == {"accepted": 49, "rejected": [{"line": 8, "reason": "missing_key: prediction_id is empty"}]}
    assert rows(service) == (49, 1)


def test_a_table_sent_again_changes_nothing(service: Service, send: Send) -> None:
    body = stream(table_of(events(40)))
    for _ in range(2):
        assert send(body)[1]["accepted"] == 40
    assert rows(service) == (40, 0)


def test_an_empty_table_is_no_mistake(send: Send) -> None:
    body = stream(table_of(events(1)).slice(0, 0))
    assert send(body) == (200, {"accepted": 0, "rejected": []})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: b"", "it does not begin with a schema"),
        (lambda _: b'{"type":"prediction"}', "it is no whole Arrow stream"),
        (lambda body: body[: len(body) // 2], "it is no whole Arrow stream"),
        (lambda body: body[:-8], "it ends without an end-of-stream mark"),
        (lambda body: body + b"\n", "1 bytes follow the end of the stream"),
        (lambda body: b"ARROW1\0\0" + body, "it is an Arrow file"),
        (lambda body: body.replace(b"pod-1", b"pod-\xff"), "its data are broken"),
    ],
)
def test_what_is_no_table_is_refused_and_nothing_of_it_is_kept(
    service: Service, send: Send, spoil: Any, reason: str
) -> None:
    body = spoil(stream(table_of(events(40)), rows=10))
    status, answer = send(body)
    assert status == 400
    assert answer["detail"].startswith(reason)
    assert rows(service) == (0, 0)


def test_a_small_body_that_would_become_a_large_table_is_refused(send: Send) -> None:
    large = pa.table({"type": ["prediction"] * 100, "error": ["x" * 1_000_000] * 100})
    body = stream(large, compression="zstd")
    assert len(body) < 100_000
    status, answer = send(body)
    assert (status, answer["detail"]) == (413, "it has more than 67108864 bytes as lines; send smaller tables")
