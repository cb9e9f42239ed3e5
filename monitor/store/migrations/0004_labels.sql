-- Labels as they became known. The latest one counts; a retracted one takes it back.
CREATE TABLE IF NOT EXISTS labels
(
    environment LowCardinality(String),
    model LowCardinality(String),
    prediction_id String,
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    label String,
    number Float64,
    retracted Bool,
    outcome_names Array(LowCardinality(String)),
    outcome_values Array(Float64),
    source LowCardinality(String),
    batch String,
    row UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (environment, model, prediction_id, timestamp, source, batch, row)
