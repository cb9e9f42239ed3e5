"""Which batch a chunk of a file is: two files may begin alike, and the same file may have grown since."""

from __future__ import annotations

import hashlib

import polars as pl

from monitor.store import Store


def chunk_batch(store: Store, key: str, chunk: bytes) -> str:
    """The name of a chunk's batch, which is kept in mind before it is taken in.

    The same as that of an earlier chunk with this key if it holds all of that one at its beginning, else a new one.
    """
    known = store.query("imports_of_key", key=key)
    number = known.height
    for earlier, size, digest in known.iter_rows():
        if _digest(chunk[:size]) == digest:
            number = earlier
            break
    row = {"key": [key], "number": [number], "size": [len(chunk)], "digest": [_digest(chunk)]}
    store.insert("imports", pl.DataFrame(row, schema_overrides={"number": pl.UInt32, "size": pl.UInt64}))
    return key if number == 0 else hashlib.sha256(f"{key}\x1f{number}".encode()).hexdigest()[:32]


def _digest(chunk: bytes) -> str:
    return hashlib.sha256(chunk).hexdigest()
