-- The cells of a model's features, made once.
CREATE TABLE IF NOT EXISTS layouts
(
    environment LowCardinality(String),
    model LowCardinality(String),
    layout_id String,
    cells String,
    added DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, added)
