-- Up to when what is kept of a model was removed, by the time of its events; written before it is. Of no model: what belongs to none.
CREATE TABLE IF NOT EXISTS removals
(
    environment LowCardinality(String),
    model LowCardinality(String),
    what LowCardinality(String),
    until DateTime64(3, 'UTC'),
    removed DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(until)
ORDER BY (environment, model, what)
