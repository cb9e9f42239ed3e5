-- How long after their time the quickest events of each server arrived: a low quantile over batches, as one odd event must not
-- decide. When lines of a file arrived says nothing of any clock.
SELECT server, quantileExact(0.1)(delay) AS delay_ms, count() AS batches
FROM batches FINAL
ARRAY JOIN clock_environments AS environment, clock_servers AS server, clock_delays AS delay
WHERE environment = {environment:String} AND source != 'file'
    AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
GROUP BY server
ORDER BY server
