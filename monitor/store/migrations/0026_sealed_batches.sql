-- Which batches are in the sum of an hour that is sealed: should one come again, it is not counted again.
CREATE TABLE IF NOT EXISTS sealed_batches
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    generation UInt64,
    source LowCardinality(String),
    batch String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour, generation, source, batch)
