-- What became of each batch as a whole, written when the rest of it is there. Offsets are -1 where it came from no log.
-- labels: rows of labels that were kept, labels_from: the earliest time of one (epoch seconds); rejects_id names the lines that were refused.
CREATE TABLE IF NOT EXISTS batches
(
    source LowCardinality(String),
    batch String,
    first Int64,
    last Int64,
    rejected UInt64,
    predictions UInt64,
    others UInt64,
    labels UInt64,
    labels_from UInt64,
    rejects_id UInt64,
    received DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received)
ORDER BY (source, batch)
SETTINGS min_parts_to_merge_at_once = 10
