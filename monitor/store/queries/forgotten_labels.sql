-- The records of batches without the labels of forgotten predictions that are still there.
SELECT
    counted.source AS source,
    counted.batch AS batch,
    counted.first AS first,
    counted.last AS last,
    counted.rejected AS rejected,
    counted.predictions AS predictions,
    counted.others AS others,
    toUInt64(counted.labels - if(counted.labels = there.kept, 0, least(counted.labels, there.gone))) AS labels,
    counted.labels_from AS labels_from,
    counted.rejects_id AS rejects_id,
    counted.clock_environments AS clock_environments,
    counted.clock_servers AS clock_servers,
    counted.clock_delays AS clock_delays,
    counted.received AS received,
    counted.taken AS taken,
    counted.revision AS revision
FROM
(
    SELECT source, batch, uniqExactIf(row, is_gone) AS gone, uniqExactIf(row, NOT is_gone) AS kept
    FROM
    (
        SELECT
            source, batch, row,
            environment = {environment:String} AND model = {model:String} AND hex(SHA256(prediction_id)) IN (
                SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String}) AS is_gone
        FROM labels
    )
    GROUP BY source, batch
    HAVING gone > 0
) AS there
INNER JOIN (SELECT * FROM batches FINAL) AS counted ON there.source = counted.source AND there.batch = counted.batch
ORDER BY source, batch
