-- How often something was written to the profiles of an hour. Each write adds a mark after its rows, so an hour whose
-- marks have not grown since it was folded holds nothing new.
CREATE TABLE IF NOT EXISTS profile_marks
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC'),
    marks UInt64
)
ENGINE = SummingMergeTree(marks)
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour)
SETTINGS min_parts_to_merge_at_once = 10
