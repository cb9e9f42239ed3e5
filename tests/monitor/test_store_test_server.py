"""The test server does what a ClickHouse server does, as far as the tests need it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clickhouse import clickhouse_server
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server.port


@pytest.fixture
def connect(port: int) -> Iterator[Callable[..., Any]]:
    """Makes clients as somebody else might, without the store."""
    with contextlib.ExitStack() as stack:

        def made(**options: Any) -> Any:
            return stack.enter_context(Client("127.0.0.1", port, **options))

        yield made


@pytest.mark.parametrize("compression", [False, "lz4"])
def test_blocks_are_taken_plain_and_compressed(connect: Callable[..., Any], compression: str | bool) -> None:
    client = connect(compression=compression)
    client.execute("CREATE TEMPORARY TABLE t (n UInt8, s LowCardinality(Nullable(String)), a Array(Nullable(Int64)))")
    rows = [(1, "a", [1, None]), (2, None, []), (3, "", [-1])]
    assert client.execute("INSERT INTO t (n, s, a) VALUES", rows) == 3
    assert client.execute("SELECT * FROM t ORDER BY n") == rows


def test_databases_and_settings_are_those_of_a_connection(connect: Callable[..., Any]) -> None:
    one, other = connect(), connect(settings={"max_block_size": 1234})
    database = one.execute("SELECT currentDatabase()")
    one.execute("USE system")
    assert one.execute("SELECT currentDatabase()") == [("system",)]
    assert other.execute("SELECT currentDatabase(), getSetting('max_block_size')") == [(database[0][0], 1234)]
    asked = "SELECT getSetting('max_block_size')"
    given = one.execute(asked)
    assert one.execute(asked, settings={"max_block_size": 77}) == [(77,)]
    assert one.execute(asked) == given


def test_a_failure_has_its_code_and_the_connection_goes_on(connect: Callable[..., Any]) -> None:
    client = connect()
    failing = {"SELECT nothing": 47, "DROP TABLE no_such_table": 60, "SELECT (": 62, "SHOW DATABASES": 48}
    for statement, code in failing.items():
        with pytest.raises(ServerException) as failure:
            client.execute(statement)
        assert failure.value.code == code
        assert client.execute("SELECT 1") == [(1,)]


def test_values_of_other_types_are_refused(connect: Callable[..., Any]) -> None:
    client = connect()
    client.execute("CREATE TEMPORARY TABLE t (d Decimal(9, 2))")
    with pytest.raises((ServerException, EOFError, OSError)):
        client.execute("INSERT INTO t (d) VALUES", [(1,)])
    assert client.execute("SELECT 1") == [(1,)]


def test_a_client_that_talks_of_something_else_does_no_harm(port: int, connect: Callable[..., Any]) -> None:
    for nonsense in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(nonsense)
    assert connect().execute("SELECT 1") == [(1,)]
