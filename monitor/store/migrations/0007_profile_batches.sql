-- Counts over the cells of a model's layout, of all events, per batch and minute. Only cells that are not zero are kept.
-- A row belongs to one sampling weight, so weighted and raw counts can both be had; segment '' is everything.
CREATE TABLE IF NOT EXISTS profile_batches
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    role LowCardinality(String),
    segment LowCardinality(String),
    minute DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    weight Float64,
    layout_id LowCardinality(String),
    n UInt64,
    failed UInt64,
    undeclared UInt64,
    cells Array(UInt32),
    counts Array(UInt32),
    source LowCardinality(String),
    batch String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (environment, model, segment, minute, version, server, role, weight, source, batch)
SETTINGS min_parts_to_merge_at_once = 10
