-- When the latest of what is there of an hour of a batch arrived; long ago where no row tells.
SELECT max(received) AS received
FROM predictions
WHERE environment = {environment:String} AND model = {model:String}
    AND timestamp >= {hour:DateTime64(3, 'UTC')} AND timestamp < {hour:DateTime64(3, 'UTC')} + INTERVAL 1 HOUR
    AND source = {source:String} AND batch = {batch:String}
