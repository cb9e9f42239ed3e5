-- The profiles of a window, one row per version, server, segment, role and sampling weight.
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
FROM profiles FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY version, server, segment, role, weight
ORDER BY version, server, segment, role, weight
