-- When a batch was taken in, which for one of a log that is read again is long after it was received; and under which configuration.
ALTER TABLE batches
    ADD COLUMN IF NOT EXISTS taken DateTime64(3, 'UTC') DEFAULT received,
    ADD COLUMN IF NOT EXISTS revision LowCardinality(String)
