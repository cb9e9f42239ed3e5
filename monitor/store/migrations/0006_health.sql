-- Health checks, reported by servers or made by the probe.
CREATE TABLE IF NOT EXISTS health
(
    environment LowCardinality(String),
    server LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    timestamp DateTime64(3, 'UTC'),
    received DateTime64(3, 'UTC'),
    ok Bool,
    latency_ms Float64,
    status_code UInt16,
    error String,
    resource_names Array(LowCardinality(String)),
    resource_values Array(Float64),
    source LowCardinality(String),
    batch String,
    row UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (environment, server, timestamp, source, batch, row)
