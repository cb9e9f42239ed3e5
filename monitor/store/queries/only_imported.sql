-- The servers whose predictions came from files alone, in the batches with events of a model that arrived since a time.
SELECT server
FROM batches FINAL
ARRAY JOIN clock_environments AS environment, clock_servers AS server
WHERE environment = {environment:String} AND received >= {since:DateTime64(3, 'UTC')}
    AND (source, batch) IN
    (
        SELECT source, batch
        FROM batch_hours
        WHERE environment = {environment:String} AND model = {model:String} AND hour >= {since:DateTime64(3, 'UTC')}
    )
GROUP BY server
HAVING min(source IN ('file', 'dead_letters/file')) = 1
ORDER BY server
