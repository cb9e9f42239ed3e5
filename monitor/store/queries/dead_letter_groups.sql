-- Dead letters by source and reason, without those that were taken in since.
SELECT
    source,
    reason,
    count() AS lines,
    min(received) AS first_received,
    max(received) AS last_received,
    argMax(detail, (received, batch, row)) AS example
FROM dead_letters FINAL
WHERE (source, batch, row) NOT IN (SELECT source, batch, row FROM replayed_letters)
    AND (source, batch, rejects_id) IN (SELECT source, batch, rejects_id FROM batches FINAL WHERE rejected > 0)
GROUP BY source, reason
ORDER BY lines DESC, source, reason
