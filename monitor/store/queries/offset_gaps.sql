-- Offsets of logs that are in no batch, between the lowest and the highest of the batches that arrived in a span.
SELECT source, previous_last + 1 AS first, following - 1 AS last
FROM
(
    SELECT
        batches.source AS source,
        batches.first AS following,
        max(batches.last) OVER (
            PARTITION BY batches.source
            ORDER BY batches.first, batches.last
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS previous_last,
        row_number() OVER (PARTITION BY batches.source ORDER BY batches.first, batches.last) AS number
    FROM
    (
        SELECT source, first, last
        FROM batches FINAL
        WHERE first >= 0
    ) AS batches
    INNER JOIN
    (
        SELECT source, min(first) AS lowest, max(last) AS highest
        FROM batches FINAL
        WHERE first >= 0 AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
        GROUP BY source
    ) AS spans ON batches.source = spans.source
    WHERE batches.last >= spans.lowest AND batches.first <= spans.highest
)
WHERE number > 1 AND following > previous_last + 1
ORDER BY source, first
