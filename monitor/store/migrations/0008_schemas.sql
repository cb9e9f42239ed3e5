-- The names behind the positions in feature rows. The id is a hash of the names and kinds.
CREATE TABLE IF NOT EXISTS schemas
(
    environment LowCardinality(String),
    model LowCardinality(String),
    schema_id UInt64,
    num_names Array(String),
    cat_names Array(String),
    task LowCardinality(String),
    added DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, schema_id)
