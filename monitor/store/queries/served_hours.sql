-- What served in each hour of a span, and from which minute to which: of some generations of whole hours, and of the batches
-- whose minute is in the span and not in those hours, nor in sums of theirs.
SELECT
    hour,
    version,
    server,
    sum(n) AS rows,
    min(first_minute) AS first_seen,
    max(last_minute) AS last_seen
FROM
(
    SELECT hour, version, server, first_minute, last_minute, n
    FROM profile_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND role = 'live'
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND generation IN {generations:Array(UInt64)}
    UNION ALL
    SELECT
        toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour,
        version, server, minute AS first_minute, minute AS last_minute, n
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND role = 'live'
        AND minute >= {batches_start:DateTime64(3, 'UTC')} AND minute < {batches_end:DateTime64(3, 'UTC')}
        AND toUnixTimestamp(toStartOfHour(minute)) NOT IN {folded_hours:Array(UInt64)}
        AND (toUnixTimestamp(toStartOfHour(minute)), source, batch) NOT IN
        (
            SELECT toUnixTimestamp(hour), source, batch
            FROM sealed_batches
            WHERE environment = {environment:String} AND model = {model:String}
                AND hour >= {batches_start:DateTime64(3, 'UTC')} AND hour < {batches_end:DateTime64(3, 'UTC')}
                AND generation IN {seals:Array(UInt64)}
        )
)
GROUP BY hour, version, server
ORDER BY hour, server, version
