-- How often labels were written that became known in an hour. Each write adds a mark behind its rows.
CREATE TABLE IF NOT EXISTS label_marks
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    marks UInt64
)
ENGINE = SummingMergeTree(marks)
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour)
