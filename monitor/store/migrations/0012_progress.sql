-- Up to which time of arrival each partition of a log is taken in. The log's identity tells a topic from one that was made anew.
CREATE TABLE IF NOT EXISTS progress
(
    topic LowCardinality(String),
    partition UInt32,
    log String,
    complete_until DateTime64(3, 'UTC'),
    written DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(written)
ORDER BY (topic, partition, log)
