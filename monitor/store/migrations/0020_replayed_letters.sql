-- Dead letters that were taken in after all.
CREATE TABLE IF NOT EXISTS replayed_letters
(
    source LowCardinality(String),
    batch String,
    row UInt32,
    replayed DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (source, batch, row)
