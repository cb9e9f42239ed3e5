-- Feature keys that nobody declared, of all live events, per batch and minute. What is beyond the first names stands under ''.
CREATE TABLE IF NOT EXISTS undeclared_keys
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    minute DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    name String,
    n UInt64,
    source LowCardinality(String),
    batch String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (environment, model, minute, version, server, name, source, batch)
