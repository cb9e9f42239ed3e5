-- Which chunks of files were imported under a key, by their size and a hash of their bytes: a chunk that begins with those bytes
-- is of the same file, which may have grown.
CREATE TABLE IF NOT EXISTS imports
(
    key String,
    number UInt32,
    size UInt64,
    digest String
)
ENGINE = ReplacingMergeTree(size)
ORDER BY (key, number)
