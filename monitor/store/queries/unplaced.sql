-- The batches that have events without cells of the layout in a window, and how many.
SELECT source, batch, sum(n) AS events
FROM profile_batches FINAL
WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND layout_id != {layout_id:String}
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY source, batch
ORDER BY source, batch
