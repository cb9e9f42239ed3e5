-- How many events were counted in each hour when their batches were taken in.
SELECT hour, sum(events) AS events
FROM batch_hours FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
GROUP BY hour
ORDER BY hour
