-- References: count vectors over the layout. The latest one of a version (or of all, '') counts.
CREATE TABLE IF NOT EXISTS model_references
(
    environment LowCardinality(String),
    model LowCardinality(String),
    version LowCardinality(String),
    name String,
    layout_id String,
    counts Array(UInt64),
    segments Array(String),
    segment_counts Array(UInt64),
    added DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (environment, model, version, added)
