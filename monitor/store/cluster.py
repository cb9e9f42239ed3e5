"""The same tables on all hosts of a cluster: what changes in the statements that make them."""

from __future__ import annotations

import re

from monitor.store.literals import quoted

MADE = re.compile(
    r"\b(CREATE TABLE IF NOT EXISTS (?:\w+)|ALTER TABLE (?:\w+)(?=\s+ADD COLUMN)|"
    r"CREATE OR REPLACE VIEW (?:`(?:[^`\\]|\\.)*`))"
)
ENGINE = re.compile(r"\bENGINE = (?=\w*MergeTree)")


def replicated(sql: str, cluster: str) -> str:
    r"""A statement that makes a table, a column or a view, as one for all hosts of a cluster; any other as it is.

    Where the replicas keep their common state is the servers' own setting (``default_replica_path``).

    >>> print(replicated("CREATE TABLE IF NOT EXISTS t (n UInt8)\nENGINE = MergeTree\nORDER BY n", "main"))
    CREATE TABLE IF NOT EXISTS t ON CLUSTER `main` (n UInt8)
    ENGINE = ReplicatedMergeTree
    ORDER BY n
    """
    return ENGINE.sub("ENGINE = Replicated", MADE.sub(rf"\1 ON CLUSTER {quoted(cluster)}", sql, count=1))
