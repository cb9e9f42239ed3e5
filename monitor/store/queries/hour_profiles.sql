-- The profiles of the hours of a span, added up: over the sums that they begin with, and the batches that are not in those.
SELECT
    hour,
    version,
    server,
    role,
    segment,
    weight,
    layout_id,
    min(first) AS first_minute,
    max(last) AS last_minute,
    sum(parts.n) AS n,
    sum(parts.failed) AS failed,
    sum(parts.undeclared) AS undeclared,
    sumMap(parts.cells, parts.counts) AS filled,
    tupleElement(filled, 1) AS cells,
    tupleElement(filled, 2) AS counts
FROM
(
    SELECT
        toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour, version, server, role, segment, weight, layout_id,
        minute AS first, minute AS last, n, failed, undeclared, cells, CAST(counts, 'Array(UInt64)') AS counts
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
        AND toUnixTimestamp(toStartOfHour(minute)) IN {hours:Array(UInt64)}
        AND (toUnixTimestamp(toStartOfHour(minute)), source, batch) NOT IN
        (
            SELECT toUnixTimestamp(hour), source, batch
            FROM sealed_batches
            WHERE environment = {environment:String} AND model = {model:String}
                AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
                AND generation IN {seals:Array(UInt64)}
        )
    UNION ALL
    SELECT hour, version, server, role, segment, weight, layout_id, first_minute, last_minute, n, failed, undeclared, cells, counts
    FROM profile_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND generation IN {bases:Array(UInt64)}
) AS parts
GROUP BY hour, version, server, role, segment, weight, layout_id
ORDER BY hour, version, server, role, segment, weight, layout_id
