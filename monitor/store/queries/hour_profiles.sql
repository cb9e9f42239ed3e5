-- The profiles of the hours of a span, added up over their batches.
SELECT
    toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour,
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
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
    AND toUnixTimestamp(toStartOfHour(minute)) IN {hours:Array(UInt64)}
GROUP BY hour, version, server, role, segment, weight, layout_id
ORDER BY hour, version, server, role, segment, weight, layout_id
