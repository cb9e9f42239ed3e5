-- Which chunks of files were imported under a key: how many lines they had, a hash of them, and of each line a checksum of all up to it.
-- A chunk that begins with those lines is of the same file, which has grown; one that they begin with is an older copy.
-- imported: on which day that was last seen, roughly.
CREATE TABLE IF NOT EXISTS imports
(
    key String,
    number UInt32,
    lines UInt64,
    digest String,
    checks Array(UInt32),
    imported DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (key, number)
