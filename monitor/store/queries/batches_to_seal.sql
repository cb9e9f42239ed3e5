-- The batches of some hours that are in no sealed sum, how many events each has, and where it ends (-1: it came from no log).
SELECT hour, source, batch, events, if(records.source = '', -1, records.last) AS last
FROM
(
    SELECT toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour, source, batch, sumIf(n, segment = '') AS events
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
    GROUP BY hour, source, batch
) AS held
LEFT JOIN
(
    SELECT source, batch, last
    FROM batches FINAL
    WHERE (source, batch) IN
    (
        SELECT source, batch
        FROM profile_batches
        WHERE environment = {environment:String} AND model = {model:String}
            AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
            AND toUnixTimestamp(toStartOfHour(minute)) IN {hours:Array(UInt64)}
    )
) AS records ON held.source = records.source AND held.batch = records.batch
ORDER BY hour, source, batch
