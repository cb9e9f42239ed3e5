-- Where a batch of a log ended when its sum was sealed: another one may be taken in under its name later. -1: it came from no log.
ALTER TABLE sealed_batches ADD COLUMN IF NOT EXISTS last Int64 DEFAULT -1
