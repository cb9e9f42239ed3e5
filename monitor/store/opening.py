"""Which store the configuration asks for."""

from __future__ import annotations

from monitor.config import StoreSpec
from monitor.secrets import read_secret
from monitor.store import Store


def open_store(spec: StoreSpec) -> Store:
    """The ClickHouse server, where one is named, else the engine in the data folder.

    Raises ConfigError when the server's password is not where the configuration says, StoreBusyError when another
    process has the folder.
    """
    server = spec.clickhouse
    if server is None:
        from monitor.store.embedded import EmbeddedStore

        return EmbeddedStore(spec.path)
    from monitor.store.server import ServerStore

    named = server.password_env or server.password_file
    return ServerStore(server, read_secret(server.password_env, server.password_file) if named else "")
