-- Where batches of a log have offsets that earlier ones have as well: from the first such batch of each log to the end of the last,
-- among those that arrived or were taken in in a span, and all between them. A batch that was sealed may have had more than its
-- record says.
WITH lately AS
(
    SELECT source, first, last, received
    FROM batches FINAL
    WHERE first >= 0
        AND (received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
            OR taken >= {start:DateTime64(3, 'UTC')} AND taken < {end:DateTime64(3, 'UTC')})
)
SELECT source, min(first) AS lowest, max(last) AS highest
FROM
(
    SELECT
        batches.source AS source,
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
        SELECT records.source AS source, records.batch AS batch, records.first AS first, greatest(records.last, sealed.last) AS last
        FROM (SELECT source, batch, first, last FROM batches FINAL WHERE first >= 0) AS records
        LEFT JOIN
        (
            SELECT source, batch, max(last) AS last
            FROM sealed_batches
            WHERE startsWith(source, 'kafka/') AND hour >= (SELECT min(received) - INTERVAL 1 DAY FROM lately)
            GROUP BY source, batch
        ) AS sealed ON records.source = sealed.source AND records.batch = sealed.batch
    ) AS batches
    INNER JOIN
    (
        SELECT source, min(first) AS lowest, max(last) AS highest
        FROM lately
        GROUP BY source
    ) AS spans ON batches.source = spans.source
    WHERE batches.last >= spans.lowest AND batches.first <= spans.highest
)
WHERE number > 1 AND taken_until >= first
GROUP BY source
ORDER BY source
