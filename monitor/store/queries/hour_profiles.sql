-- The profiles of an hour, added up over its batches.
SELECT
    version,
    server,
    role,
    segment,
    weight,
    layout_id,
    min(minute) AS first_minute,
    max(minute) AS last_minute,
    sum(batches.n) AS n,
    sum(batches.failed) AS failed,
    sum(batches.undeclared) AS undeclared,
    sumMap(batches.cells, batches.counts) AS filled,
    tupleElement(filled, 1) AS cells,
    tupleElement(filled, 2) AS counts
FROM profile_batches AS batches FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND minute >= {hour:DateTime64(3, 'UTC')} AND minute < {hour:DateTime64(3, 'UTC')} + INTERVAL 1 HOUR
GROUP BY version, server, role, segment, weight, layout_id
ORDER BY version, server, role, segment, weight, layout_id
