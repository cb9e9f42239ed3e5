-- The feature rows of one batch whose minute is in a window, in order.
SELECT *
FROM features FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')} + INTERVAL 1 MINUTE
    AND toStartOfMinute(timestamp) >= {start:DateTime64(3, 'UTC')} AND toStartOfMinute(timestamp) < {end:DateTime64(3, 'UTC')}
    AND source = {source:String} AND batch = {batch:String}
ORDER BY row
