-- The batches of a window whose events have no cells of the layout, and how many events of each.
SELECT source, batch, sum(n) AS events
FROM profiles FINAL
WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND layout_id != {layout_id:String}
GROUP BY source, batch
HAVING max(minute) >= {start:DateTime64(3, 'UTC')} AND min(minute) < {end:DateTime64(3, 'UTC')}
ORDER BY source, batch
