-- The latest dead letters, without those that were taken in since.
SELECT source, batch, row, received, reason, detail, raw
FROM dead_letters FINAL
WHERE ({reason:String} = '' OR reason = {reason:String})
    AND (source, batch, row) NOT IN (SELECT source, batch, row FROM replayed_letters)
    AND (source, batch, rejects_id) IN (SELECT source, batch, rejects_id FROM batches FINAL WHERE rejected > 0)
ORDER BY received DESC, source, batch, row
LIMIT {limit:UInt64}
