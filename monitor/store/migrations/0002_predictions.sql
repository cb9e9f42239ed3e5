-- One slim row per prediction, so that late labels can join. The key is where the row came from: taking it in again changes nothing.
CREATE TABLE IF NOT EXISTS predictions
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    role LowCardinality(String),
    prediction_id String,
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    segments Array(LowCardinality(String)),
    score Float64,
    label LowCardinality(String),
    latency_ms Float64,
    failed Bool,
    error String,
    weight Float64,
    entity_id String,
    batch_id LowCardinality(String),
    trace_id String,
    source LowCardinality(String),
    batch String,
    row UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (environment, model, toStartOfHour(timestamp), source, batch, row)
SETTINGS min_parts_to_merge_at_once = 10
