-- What a window was judged on: how often its hours had been written to before, and a digest of its events. The latest counts.
-- labels_until: a label that is known later counts for none of its predictions; only where it was judged on labels.
CREATE TABLE IF NOT EXISTS judgements
(
    environment LowCardinality(String),
    model LowCardinality(String),
    kind LowCardinality(String),
    start DateTime64(3, 'UTC'),
    end DateTime64(3, 'UTC'),
    marks UInt64,
    events UInt64,
    digest String,
    labels_until DateTime64(3, 'UTC'),
    watched_until DateTime64(3, 'UTC'),
    judged DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(end)
ORDER BY (environment, model, kind, end, start)
SETTINGS min_parts_to_merge_at_once = 10
