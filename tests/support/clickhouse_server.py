"""A ClickHouse server for tests: the native protocol over TCP or TLS, on loopback, on top of the embedded engine.

Every connection has an engine handle of its own, so that its database and its settings are its own. What was
acknowledged is on disk: after kill -9 it is there again. No HTTP, no users beyond one, no cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socketserver
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chdb
from clickhouse_native import (
    BLOCK_INFO,
    REVISION,
    Frames,
    Reader,
    exception,
    frame,
    header_block,
    parse_exception,
    read_block,
    settings,
    skip_client_info,
    text,
    varint,
)

CLIENT_HELLO, CLIENT_QUERY, CLIENT_DATA, CLIENT_CANCEL, CLIENT_PING = range(5)
HELLO, DATA, EXCEPTION, PONG, END = b"\0", b"\1", b"\2", b"\4", b"\5"
COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
SELECT = re.compile(COMMENTS + r"(?:SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
INSERT = re.compile(
    COMMENTS + r"INSERT\s+INTO\s+(?P<table>\S+)\s*\((?P<columns>.+)\)\s*(?:VALUES|FORMAT\s+Native)\s*",
    re.IGNORECASE | re.DOTALL,
)


class RefusedError(Exception):
    """Something the client may not or cannot have, with ClickHouse's error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: str, user: str, password: str, tls: ssl.SSLContext | None) -> None:
        self.folder, self.user, self.password, self.tls = folder, user, password, tls
        self.engine = chdb.connect(folder)  # type: ignore[no-untyped-call]  # it has no types
        self.version = [int(part) for part in self.engine.query("SELECT version()", "TSV").data().split(".")[:3]]
        super().__init__(("127.0.0.1", port), Connection)


class Connection(socketserver.BaseRequestHandler):
    """One client, from its greeting until it goes."""

    server: Server

    def handle(self) -> None:
        with contextlib.suppress(EOFError, OSError), contextlib.ExitStack() as cleanup:
            channel = self.server.tls.wrap_socket(self.request, server_side=True) if self.server.tls else self.request
            self.out = cleanup.enter_context(channel.makefile("wb", buffering=1 << 20))
            source = cleanup.enter_context(channel.makefile("rb", buffering=1 << 20))
            self.reader, self.frames = Reader(source), Reader(Frames(source))
            try:
                handle = chdb.connect(self.server.folder)  # type: ignore[no-untyped-call]  # it has no types
                self.engine = cleanup.enter_context(contextlib.closing(handle))
                self.greet()
            except Exception as error:
                self.fail(error)
                raise EOFError from error
            while True:
                self.answer()

    def greet(self) -> None:
        if self.reader.varint() != CLIENT_HELLO:
            raise RefusedError(101, "a client says hello first")
        self.reader.text()
        _, _, revision = (self.reader.varint() for _ in ("major", "minor", "revision"))
        database, user, password = (self.reader.text() for _ in ("database", "user", "password"))
        if revision < REVISION:
            raise RefusedError(101, f"the client's protocol revision must be {REVISION} at least")
        if (user, password) != (self.server.user, self.server.password):
            reason = "Authentication failed: password is incorrect, or there is no user with such name"
            raise RefusedError(516, f"{user}: {reason}. (AUTHENTICATION_FAILED)")
        if database:
            self.engine.query(f"USE `{database}`")
        major, minor, patch = map(varint, self.server.version)
        name, zone, shown = text("ClickHouse"), text("UTC"), text("test server")
        self.send(HELLO + name + major + minor + varint(REVISION) + zone + shown + patch)

    def answer(self) -> None:
        packet = self.reader.varint()
        if packet == CLIENT_QUERY:
            self.query()
        elif packet == CLIENT_PING:
            self.send(PONG)
        elif packet != CLIENT_CANCEL:
            self.fail(RefusedError(99, f"unexpected packet {packet}"))
            raise EOFError

    def query(self) -> None:
        self.reader.raw()  # query id
        skip_client_info(self.reader)
        given = dict(settings(self.reader))
        self.reader.raw()  # secret between servers
        self.reader.varint()  # stage
        self.compressed = bool(self.reader.varint())
        sql = self.reader.text()
        while self.read_data()[0]:
            pass  # tables sent along are not used
        try:
            with self.applied(given):
                self.run(sql)
        except (EOFError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - the client is told
            self.fail(error)
        else:
            self.send(END)

    @contextlib.contextmanager
    def applied(self, given: dict[str, str]) -> Iterator[None]:
        """The query's settings, which are gone afterwards."""
        done = []
        try:
            for name, value in given.items():
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                self.engine.query(f"SET `{name}` = '{quoted}'")
                done.append(name)
            yield
        finally:
            for name in done:
                self.engine.query(f"SET `{name}` = DEFAULT")

    def run(self, sql: str) -> None:
        if found := INSERT.fullmatch(sql):
            self.insert(found["table"], found["columns"])
        elif SELECT.match(sql):
            self.send_data(self.header(sql))
            for part in self.engine.send_query(sql, "Native"):
                if block := part.bytes():
                    self.send_data(block)
        elif self.engine.query(sql).bytes():
            raise RefusedError(48, "the test server gives rows of SELECT statements only")

    def insert(self, table: str, columns: str) -> None:
        self.send_data(self.header(f"SELECT {columns} FROM {table}"))  # noqa: S608 - what the client said
        self.out.flush()
        blocks = []
        while True:
            count, rows, block = self.read_data()
            if not count:
                break
            if rows:
                blocks.append(block)
        if blocks:
            self.write(table, columns, b"".join(blocks))

    def write(self, table: str, columns: str, body: bytes) -> None:
        # Not through the engine's streaming insert, which does not report what fails while it writes.
        descriptor = os.memfd_create("rows")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(body)
            source = f"FROM INFILE '/proc/self/fd/{descriptor}' COMPRESSION 'none'"
            self.engine.query(f"INSERT INTO {table} ({columns}) {source} FORMAT Native")
        finally:
            os.close(descriptor)

    def header(self, select: str) -> bytes:
        described = self.engine.query(f"DESCRIBE ({select}\n)", "JSONEachRow").data()
        rows = map(json.loads, filter(None, described.split("\n")))  # names may hold other ends of lines
        return header_block([(row["name"], row["type"]) for row in rows])

    def read_data(self) -> tuple[int, int, bytes]:
        if self.reader.varint() != CLIENT_DATA:
            raise EOFError("a client in the middle of something else")
        self.reader.raw()  # table
        try:
            return read_block(self.frames if self.compressed else self.reader)
        except (ValueError, KeyError) as error:  # where the next packet begins is not known any more
            self.fail(error)
            raise EOFError from error

    def send_data(self, block: bytes) -> None:
        body = BLOCK_INFO + block
        self.out.write(DATA + text("") + (frame(body) if self.compressed else body))

    def send(self, packet: bytes) -> None:
        self.out.write(packet)
        self.out.flush()

    def fail(self, error: Exception) -> None:
        self.send(EXCEPTION + exception(*parse_exception(error)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--user", default="default")
    arguments.add_argument("--password-file", type=Path)
    arguments.add_argument("--certificate", type=Path)
    arguments.add_argument("--key", type=Path)
    given: Any = arguments.parse_args()
    tls = None
    if given.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.certificate, given.key)
    password = given.password_file.read_text("utf-8").strip() if given.password_file else ""
    with Server(given.port, str(given.folder), given.user, password, tls) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
