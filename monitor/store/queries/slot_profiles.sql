-- The live traffic of a span, added up by hours that are alike (0 to 23 on weekdays, 24 to 47 on weekends and holidays, by
-- the clock of a time zone), by segment and sampling weight, and by whether they are of the window at its end: of some generations of whole hours, and of the batches whose
-- minute is in the span and not in those hours, nor in sums of theirs.
SELECT
    toUInt8(toHour(there) + 24 * (toDayOfWeek(there) >= 6 OR toUInt64(toUInt16(toDate(there))) IN {holidays:Array(UInt64)})) AS slot,
    hour >= {window_start:DateTime64(3, 'UTC')} AS in_window,
    segment,
    weight,
    sum(n) AS rows,
    arraySort(groupUniqArray(toUnixTimestamp(hour))) AS hours,
    sumMap(cells, counts) AS filled,
    tupleElement(filled, 1) AS filled_cells,
    tupleElement(filled, 2) AS filled_counts
FROM
(
    SELECT hour, toTimeZone(hour, {timezone:String}) AS there, segment, weight, n, cells, counts
    FROM profile_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND role = 'live'
        AND layout_id = {layout_id:String}
        AND ({version:String} = '' OR version = {version:String})
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND generation IN {generations:Array(UInt64)}
    UNION ALL
    SELECT
        toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour,
        toTimeZone(hour, {timezone:String}) AS there,
        segment, weight, n, cells, CAST(counts, 'Array(UInt64)') AS counts
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND role = 'live'
        AND layout_id = {layout_id:String}
        AND ({version:String} = '' OR version = {version:String})
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
GROUP BY slot, in_window, segment, weight
ORDER BY slot, in_window, segment, weight
