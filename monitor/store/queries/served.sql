-- Which version served on which server, how much, and when: of some generations of whole hours, and of the batches whose
-- minute is in a span and not in those hours, nor in sums of theirs.
SELECT
    version,
    server,
    sum(n) AS rows,
    sum(n * weight) AS requests,
    min(first_minute) AS first_seen,
    max(last_minute) AS last_seen
FROM
(
    SELECT version, server, weight, first_minute, last_minute, n
    FROM profile_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND role = 'live'
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND generation IN {generations:Array(UInt64)}
    UNION ALL
    SELECT version, server, weight, minute AS first_minute, minute AS last_minute, n
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
GROUP BY version, server
ORDER BY server, first_seen, version
