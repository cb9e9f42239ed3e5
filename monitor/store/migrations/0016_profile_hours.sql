-- The profiles of whole hours, added up over their batches. An hour is always made anew as a whole, under a new generation.
CREATE TABLE IF NOT EXISTS profile_hours
(
    environment LowCardinality(String),
    model LowCardinality(String),
    hour DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    generation UInt64,
    version LowCardinality(String),
    server LowCardinality(String),
    role LowCardinality(String),
    segment LowCardinality(String),
    weight Float64,
    layout_id LowCardinality(String),
    first_minute DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    last_minute DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    n UInt64,
    failed UInt64,
    undeclared UInt64,
    cells Array(UInt32),
    counts Array(UInt64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (environment, model, hour, generation, segment, version, server, role, weight, layout_id)
