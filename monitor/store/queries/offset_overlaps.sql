-- Batches with offsets that an earlier one has as well, and where that one ends: of those that arrived in a span, and of
-- all between them.
SELECT source, batch, first, last, taken_until
FROM
(
    SELECT
        batches.source AS source,
        batches.batch AS batch,
        batches.first AS first,
        batches.last AS last,
        max(batches.last) OVER (
            PARTITION BY batches.source
            ORDER BY batches.first, batches.last, batches.batch
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS taken_until,
        row_number() OVER (PARTITION BY batches.source ORDER BY batches.first, batches.last, batches.batch) AS number
    FROM
    (
        SELECT source, batch, first, last
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
WHERE number > 1 AND taken_until >= first
ORDER BY source, first
