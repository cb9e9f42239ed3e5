-- Batches that do not add up: dead letters (since those were last removed) or predictions that are not as many as counted.
SELECT
    source,
    batch,
    max(counted_rejected) AS rejected,
    sum(dead) AS dead_letters,
    max(counted_predictions) AS predictions,
    sum(events) AS events
FROM
(
    SELECT
        source, batch, if(received < {letters_since:DateTime64(3, 'UTC')}, 0, batches.rejected) AS counted_rejected, 0 AS dead, batches.predictions AS counted_predictions, 0 AS events
    FROM batches FINAL
    WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT source, batch, 0, 1, 0, 0 FROM dead_letters FINAL WHERE received >= {letters_since:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT source, batch, 0, 0, 0, batch_hours.events FROM batch_hours FINAL
)
WHERE (source, batch) IN (
    SELECT source, batch
    FROM batches FINAL
    WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
)
GROUP BY source, batch
HAVING rejected != dead_letters OR predictions != events
ORDER BY source, batch
