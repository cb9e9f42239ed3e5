-- Which generation of an hour counts, and how many marks the hour had before it was made.
CREATE TABLE IF NOT EXISTS profile_folds
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    generation UInt64,
    marks UInt64,
    folded DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(marks)
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour)
