-- Offsets of logs that are in no batch, between two that are.
SELECT source, previous_last + 1 AS first, following - 1 AS last
FROM
(
    SELECT
        source,
        first AS following,
        lagInFrame(last, 1, first - 1) OVER (PARTITION BY source ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
            AS previous_last
    FROM (
        SELECT source, first, last
        FROM batches FINAL
        WHERE first >= 0 AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    )
)
WHERE following > previous_last + 1
ORDER BY source, first
