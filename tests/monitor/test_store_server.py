"""What only the server store does: it connects, waits, gives up, and connects again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from clickhouse import ClickHouse, clickhouse_server, opened
from processes import free_port

from monitor.config import ClickHouseSpec, StoreSpec
from monitor.store import Store, StoreError, StoreUnavailableError, migrate, migrations
from monitor.store.opening import open_store
from monitor.store.server import ServerStore

HIDDEN = "not-to-be-shown"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ClickHouse]:
    """A server that the test may kill."""
    with clickhouse_server(tmp_path / "server") as server:
        yield server


def store_of(server: ClickHouse, **more: object) -> contextlib.closing[Store]:
    return opened(ClickHouseSpec.model_validate({"url": server.url, **more}))


def layouts(rows: int, first: int = 0) -> pl.DataFrame:
    """Rows of a table without partitions."""
    ids = pl.select(pl.int_range(first, first + rows).cast(pl.String)).to_series()
    row = {"environment": "e", "model": ids, "layout_id": "l", "cells": "{}", "added": datetime(2026, 3, 1, tzinfo=UTC)}
    return pl.DataFrame(row)


def count(store: Store) -> int:
    return int(store.select("SELECT count() AS n FROM layouts FINAL")["n"][0])


# It goes on after the server was away.


def test_what_was_acknowledged_is_there_after_the_server_died(own_server: ClickHouse) -> None:
    with store_of(own_server) as store:
        migrate(store)
        store.insert("layouts", layouts(1000))
        own_server.kill()
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="insert into layouts: the server cannot be reached"):
            store.insert("layouts", layouts(10, 1000))
        with pytest.raises(StoreUnavailableError):
            store.select("SELECT 1")
        assert time.monotonic() - started < 5
        own_server.start()
        assert count(store) == 1000
        store.insert("layouts", layouts(10, 1000))
        assert count(store) == 1010


def test_a_server_that_dies_in_an_insert_keeps_all_or_nothing(own_server: ClickHouse) -> None:
    rows = layouts(300_000)
    with store_of(own_server) as store:
        migrate(store)
        for seconds in (0.1, 0.3):
            killing = threading.Timer(seconds, own_server.kill)
            killing.start()
            try:
                store.insert("layouts", rows)
                kept: tuple[int, ...] = (len(rows),)
            except StoreUnavailableError:
                kept = (0, len(rows))
            killing.join()
            own_server.start()
            assert count(store) in kept
        store.insert("layouts", rows)
        assert count(store) == len(rows)


class Relay:
    """Stands between a store and its server, and cuts the next connection after so many bytes of what is sent."""

    def __init__(self, to: int) -> None:
        self.cut_after: int | None = None
        self.cuts = 0
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            back = threading.Thread(target=self._pass_on, args=(server, client))
            back.start()
            self._pass_on(client, server)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if target.getpeername()[1] == self._to and self._is_cut(len(data)):
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, size: int) -> bool:
        if self.cut_after is None:
            return False
        self.cut_after -= size
        if self.cut_after >= 0:
            return False
        self.cut_after = None
        self.cuts += 1
        return True


@pytest.fixture
def relay(own_server: ClickHouse) -> Iterator[Relay]:
    with contextlib.closing(Relay(own_server.port)) as relay:
        yield relay


def test_a_read_whose_connection_breaks_is_asked_again(relay: Relay) -> None:
    with opened(ClickHouseSpec(url=f"clickhouse://127.0.0.1:{relay.port}")) as store:
        store.select("SELECT 1")
        relay.cut_after = 50  # in the middle of the query, after the ping before it
        assert store.select("SELECT 2 AS two").rows() == [(2,)]
        assert relay.cuts == 1


def test_an_insert_whose_connection_breaks_is_left_to_the_caller(relay: Relay, own_server: ClickHouse) -> None:
    with opened(ClickHouseSpec(url=f"clickhouse://127.0.0.1:{relay.port}")) as store, store_of(own_server) as direct:
        migrate(store)
        for cut_after in (50, 20_000):
            relay.cut_after = cut_after
            with pytest.raises(StoreUnavailableError, match="insert into layouts: the connection to the server broke"):
                store.insert("layouts", layouts(20_000))
            assert count(direct) == 0
        store.insert("layouts", layouts(20_000))
        assert count(direct) == 20_000
        assert relay.cuts == 2


# It says what is wrong, and never the password.


def test_a_server_that_is_not_there_is_said_quickly() -> None:
    started = time.monotonic()
    with opened(ClickHouseSpec(url=f"clickhouse://127.0.0.1:{free_port()}")) as store:
        with pytest.raises(StoreUnavailableError, match="SELECT 1: the server cannot be reached: Connection refused"):
            store.select("SELECT 1")
        with pytest.raises(StoreUnavailableError, match="insert into labels: the server cannot be reached"):
            store.insert("labels", pl.DataFrame({"model": ["m"]}))
    assert time.monotonic() - started < 2


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.store.server.ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"clickhouse://127.0.0.1:{silent.getsockname()[1]}"
        with opened(ClickHouseSpec(url=url)) as store, pytest.raises(StoreUnavailableError, match="SELECT 1: "):
            store.select("SELECT 1")


def test_passwords_are_checked_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("the right one\n")
    wrong.write_text(HIDDEN)
    with clickhouse_server(tmp_path / "server", user="telltale", password_file=right) as server:
        with store_of(server, password_file=right) as store:
            assert store.select("SELECT 1 AS one").rows() == [(1,)]
        for more in ({"password_file": wrong}, {}):
            with store_of(server, **more) as store:
                with pytest.raises(StoreError, match=r"Code: 516\. .*telltale: Authentication failed") as failure:
                    store.select("SELECT 1")
                assert not isinstance(failure.value, StoreUnavailableError)
                assert HIDDEN not in f"{failure.value!r} {store!r} {caplog.text} {server.process.output()}"


def test_what_a_server_may_get_over_is_told_apart(server_store: Store) -> None:
    many = "SELECT count() FROM (SELECT DISTINCT number, toString(number) FROM numbers(3000000))"
    for setting, code in (("max_memory_usage = 1000000", 241), ("max_execution_time = 0.05", 159)):
        with pytest.raises(StoreUnavailableError, match=f"Code: {code}"):
            server_store.select(f"{many} SETTINGS {setting}")
    with pytest.raises(StoreError, match="Code: 62") as refused:
        server_store.select("SELECT (")
    assert not isinstance(refused.value, StoreUnavailableError)


def test_a_type_that_no_table_has_is_refused(server_store: Store) -> None:
    with pytest.raises(StoreError, match=r"values of type Decimal\(9, 2\) are not read; convert them in the statement"):
        server_store.select("SELECT toDecimal32(1, 2) AS d")


def test_a_database_that_is_not_there_is_said(clickhouse_spec: ClickHouseSpec) -> None:
    absent = clickhouse_spec.model_copy(update={"url": f"{clickhouse_spec.url}_absent"})
    with opened(absent) as store, pytest.raises(StoreError, match="_absent"):
        store.select("SELECT 1")


# TLS.


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate authority of the test's own, and a certificate of it for 127.0.0.1 with its key."""
    folder = tmp_path_factory.mktemp("authority")
    ca, ca_key, key, request, signed = (folder / n for n in ("ca.pem", "ca.key", "key.pem", "request", "server.pem"))
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    make = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    sign = ["openssl", "x509", "-req", "-days", "2", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"]
    for command in (
        [*make, "-x509", "-days", "2", "-subj", "/CN=Tests", "-keyout", ca_key, "-out", ca],
        [*make, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request],
        [*sign, "-extfile", extensions, "-out", signed],
    ):
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return ca, signed, key


def test_tls_needs_a_certificate_that_is_trusted(tmp_path: Path, authority: tuple[Path, Path, Path]) -> None:
    ca, certificate, key = authority
    with clickhouse_server(tmp_path / "server", certificate=certificate, key=key) as server:
        assert server.url.startswith("clickhouses://")
        with store_of(server, ca_file=ca) as store:
            migrate(store)
            store.insert("layouts", layouts(5000))
            assert count(store) == 5000
        with store_of(server) as store, pytest.raises(StoreError, match=r"(?i)certificate.verify.failed"):
            store.select("SELECT 1")
        plain = ClickHouseSpec(url=server.url.replace("clickhouses", "clickhouse"))
        with opened(plain) as store, pytest.raises(StoreUnavailableError):
            store.select("SELECT 1")


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, authority: tuple[Path, Path, Path]) -> None:
    ca, certificate, key = authority
    with clickhouse_server(tmp_path / "server", certificate=certificate, key=key) as server:
        elsewhere = ClickHouseSpec(url=server.url.replace("127.0.0.1", "localhost"), ca_file=ca)
        with opened(elsewhere) as store, pytest.raises(StoreError, match="certificate"):
            store.select("SELECT 1")


# Processes and connections.


def test_processes_that_migrate_at_once_all_succeed(clickhouse_spec: ClickHouseSpec) -> None:
    code = (
        "import sys; from monitor.config import ClickHouseSpec, StoreSpec; from monitor.store import migrate; "
        "from monitor.store.opening import open_store; "
        "store = open_store(StoreSpec(clickhouse=ClickHouseSpec.model_validate_json(sys.argv[1]))); "
        "sys.stdin.read(); migrate(store)"
    )
    command = [sys.executable, "-c", code, clickhouse_spec.model_dump_json()]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    for process in running:
        with process:
            assert process.stderr is not None
            assert (process.stderr.read(), process.wait(60)) == ("", 0)
    with opened(clickhouse_spec) as store:
        recorded = store.select("SELECT number FROM migrations FINAL ORDER BY number")["number"].to_list()
        assert recorded == [number for number, _, _ in migrations()]
        assert migrate(store) == []


def test_threads_that_come_and_go_use_the_same_connection(server_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import clickhouse_driver

    server_store.select("SELECT 1")
    monkeypatch.setattr(clickhouse_driver, "Client", None)
    for _ in range(20):
        thread = threading.Thread(target=server_store.select, args=("SELECT 1",))
        thread.start()
        thread.join()
    server_store.select("SELECT 1")


def test_the_configuration_says_which_store(clickhouse_spec: ClickHouseSpec, tmp_path: Path) -> None:
    store = open_store(StoreSpec(path=tmp_path / "data", clickhouse=clickhouse_spec))
    with contextlib.closing(store):
        assert isinstance(store, ServerStore)
        assert not (tmp_path / "data").exists()
