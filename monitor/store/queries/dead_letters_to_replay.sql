-- All dead letters of the batches that have some that were not taken in yet; raw as hexadecimal digits, as it may be no text.
-- What a sender was not allowed to write stays out.
SELECT source, batch, row, received, hex(raw) AS raw, (source, batch, row) IN (SELECT source, batch, row FROM replayed_letters) AS replayed
FROM dead_letters FINAL
WHERE reason != 'forbidden_model'
    AND (source, batch, rejects_id) IN (SELECT source, batch, rejects_id FROM batches FINAL WHERE rejected > 0)
    AND (source, batch) IN
    (
        SELECT source, batch
        FROM dead_letters
        WHERE ({reason:String} = '' OR reason = {reason:String})
            AND (source, batch, row) NOT IN (SELECT source, batch, row FROM replayed_letters)
    )
ORDER BY received, source, batch, row
