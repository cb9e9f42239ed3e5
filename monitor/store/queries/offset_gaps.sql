-- Offsets of logs that are in no batch, between two that are.
SELECT source, previous_last + 1 AS first, following - 1 AS last
FROM
(
    SELECT
        source,
        first AS following,
        max(last) OVER (PARTITION BY source ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            AS previous_last,
        row_number() OVER (PARTITION BY source ORDER BY first, last) AS number
    FROM (
        SELECT source, first, last
        FROM batches FINAL
        WHERE first >= 0 AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    )
)
WHERE number > 1 AND following > previous_last + 1
ORDER BY source, first
