-- Batches with offsets that an earlier one has as well, and where that one ends.
SELECT source, batch, first, last, taken_until
FROM
(
    SELECT
        source,
        batch,
        first,
        last,
        max(last) OVER (PARTITION BY source ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS taken_until,
        row_number() OVER (PARTITION BY source ORDER BY first, last) AS number
    FROM (
        SELECT source, batch, first, last
        FROM batches FINAL
        WHERE first >= 0 AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
    )
)
WHERE number > 1 AND taken_until >= first
ORDER BY source, first
