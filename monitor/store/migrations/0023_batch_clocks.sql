-- Of each server with predictions in a batch, the least time from an event to its arrival, in milliseconds.
ALTER TABLE batches
    ADD COLUMN IF NOT EXISTS clock_environments Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS clock_servers Array(LowCardinality(String)),
    ADD COLUMN IF NOT EXISTS clock_delays Array(Int64)
