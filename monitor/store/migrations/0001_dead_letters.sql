-- What could not be taken in: the raw bytes, why, and where they came from.
CREATE TABLE IF NOT EXISTS dead_letters
(
    source LowCardinality(String),
    batch String,
    row UInt32,
    received DateTime64(3, 'UTC'),
    reason LowCardinality(String),
    detail String,
    raw String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received)
ORDER BY (source, batch, row)
