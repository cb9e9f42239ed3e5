-- Feature rows of a sample. Positions in the arrays are named by schemas; a missing, not finite or wrong value is NaN or null
-- in its array, and what the last two looked like stands in the extras, as do keys that nobody declared.
CREATE TABLE IF NOT EXISTS features
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    role LowCardinality(String),
    prediction_id String,
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    segments Array(LowCardinality(String)),
    weight Float64,
    schema_id UInt64,
    num Array(Float64),
    cat Array(LowCardinality(Nullable(String))),
    extra_names Array(LowCardinality(String)),
    extra_values Array(String),
    score Float64,
    label LowCardinality(Nullable(String)),
    latency_ms Float64,
    failed Bool,
    source LowCardinality(String),
    batch String,
    row UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (environment, model, toStartOfHour(timestamp), source, batch, row)
SETTINGS min_parts_to_merge_at_once = 10
