-- The sums of hours whose batches may go: a later sum of the hour begins with the latest of these, and leaves out the batches in it.
CREATE TABLE IF NOT EXISTS profile_seals
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    generation UInt64,
    sealed DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour, generation)
