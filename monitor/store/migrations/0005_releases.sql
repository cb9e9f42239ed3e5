-- What people or pipelines said was released.
CREATE TABLE IF NOT EXISTS releases
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    action LowCardinality(String),
    timestamp DateTime64(3, 'UTC'),
    received DateTime64(3, 'UTC'),
    servers Array(String),
    released_by String,
    reason String,
    artifact_digest String,
    source LowCardinality(String),
    batch String,
    row UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, timestamp, source, batch, row)
