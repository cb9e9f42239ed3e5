-- How many predictions of each hour a batch had, and how many rows of them were kept: what the auditor holds the rest against.
CREATE TABLE IF NOT EXISTS batch_hours
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    source LowCardinality(String),
    batch String,
    events UInt64,
    prediction_rows UInt64,
    feature_rows UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour, source, batch)
SETTINGS min_parts_to_merge_at_once = 10
