-- What could not be taken in: the raw bytes, why, and where they came from. A letter counts while its batch's record has the
-- same rejects_id: a batch that is taken in again may refuse other lines than before.
CREATE TABLE IF NOT EXISTS dead_letters
(
    source LowCardinality(String),
    batch String,
    row UInt32,
    received DateTime64(3, 'UTC'),
    reason LowCardinality(String),
    detail String,
    raw String,
    rejects_id UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received)
ORDER BY (source, batch, row)
