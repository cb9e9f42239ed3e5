-- The profiles of a window, one row per version, server, segment, role and sampling weight: of some generations of whole
-- hours, and of the batches whose minute is in a span and not in those hours, nor in sums of theirs.
SELECT
    version,
    server,
    segment,
    role,
    weight,
    sum(n) AS rows,
    sum(failed) AS failures,
    sum(undeclared) AS undeclared_keys,
    sumIf(n, layout_id != {layout_id:String}) AS unplaced,
    sumMapIf(cells, counts, layout_id = {layout_id:String}) AS filled,
    tupleElement(filled, 1) AS filled_cells,
    tupleElement(filled, 2) AS filled_counts
FROM
(
    SELECT
        version, server, segment, role, weight, layout_id, n, failed, undeclared, cells, counts
    FROM profile_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND generation IN {generations:Array(UInt64)}
    UNION ALL
    SELECT
        version, server, segment, role, weight, layout_id, n, failed, undeclared, cells,
        CAST(counts, 'Array(UInt64)') AS counts
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String}
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
GROUP BY version, server, segment, role, weight
ORDER BY version, server, segment, role, weight
