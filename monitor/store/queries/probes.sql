SELECT server, count() AS probes, countIf(NOT ok) AS failures, quantileExact(0.95)(latency_ms) AS latency_p95_ms, max(timestamp) AS last_seen
FROM health FINAL
WHERE environment = {environment:String} AND NOT has(resource_names, 'telltale_dropped') -- a pod's loss report is no check
    AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
GROUP BY server
ORDER BY server
