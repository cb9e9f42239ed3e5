-- Batches that do not add up: dead letters (since those were last removed), predictions or labels that are not as many as were
-- counted.
SELECT
    source,
    batch,
    max(counted_rejected) AS rejected,
    sum(dead) AS dead_letters,
    max(counted_predictions) AS predictions,
    sum(counted_events) AS events,
    max(counted_labels) AS labels,
    sum(kept_labels) AS label_rows,
    max(from) AS labels_from
FROM
(
    SELECT
        source, batch, if(received < {letters_since:DateTime64(3, 'UTC')}, 0, batches.rejected) AS counted_rejected, 0 AS dead,
        batches.predictions AS counted_predictions, 0 AS counted_events, batches.labels AS counted_labels, 0 AS kept_labels,
        batches.labels_from AS from
    FROM batches FINAL
    WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT source, batch, 0, 1, 0, 0, 0, 0, 0
    FROM dead_letters FINAL
    WHERE received >= {letters_since:DateTime64(3, 'UTC')} AND (source, batch, rejects_id) IN (
        SELECT source, batch, rejects_id
        FROM batches FINAL
        WHERE rejected > 0 AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    )
    UNION ALL
    SELECT source, batch, 0, 0, 0, batch_hours.events, 0, 0, 0
    FROM batch_hours FINAL
    WHERE (source, batch) IN (
        SELECT source, batch
        FROM batches FINAL
        WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    )
    UNION ALL
    SELECT source, batch, 0, 0, 0, 0, 0, uniqExact(row), 0
    FROM labels
    WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    GROUP BY source, batch
)
WHERE (source, batch) IN (
    SELECT source, batch
    FROM batches FINAL
    WHERE received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
)
GROUP BY source, batch
HAVING rejected != dead_letters OR predictions != events OR labels != label_rows
ORDER BY source, batch
