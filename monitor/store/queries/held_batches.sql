-- The batches of a log with offsets in a span, and where they ended when a sum that stands for them was sealed: null where none
-- was, and where their record says so where that was not known.
SELECT
    records.batch AS batch,
    records.first AS first,
    records.last AS last,
    multiIf(sealed.batch = '', NULL, sealed.last < 0, records.last, sealed.last) AS sealed_last
FROM
(
    SELECT batch, first, last
    FROM batches FINAL
    WHERE source = {source:String} AND first >= 0 AND first <= {last:Int64}
) AS records
LEFT JOIN
(
    SELECT batch, max(last) AS last
    FROM sealed_batches
    WHERE source = {source:String}
    GROUP BY batch
) AS sealed ON records.batch = sealed.batch
WHERE greatest(records.last, sealed.last) >= {first:Int64}
ORDER BY first, batch
