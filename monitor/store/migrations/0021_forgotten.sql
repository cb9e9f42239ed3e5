-- Predictions whose rows were removed for good, by a hash of their ids: should a batch be taken in again, they are removed again.
CREATE TABLE IF NOT EXISTS forgotten
(
    environment LowCardinality(String),
    model LowCardinality(String),
    id_hash String,
    forgotten DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, id_hash)
