-- When events of a model first arrived; the earliest counts.
CREATE TABLE IF NOT EXISTS sightings
(
    environment LowCardinality(String),
    model LowCardinality(String),
    arrived DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, arrived)
