SELECT $__timeInterval_ms(timestamp) AS time, {series} AS series, quantileExact(0.95)(latency_ms) AS p95
FROM health FINAL
WHERE {scope} AND isFinite(latency_ms) AND $__timeFilter_ms(timestamp)
GROUP BY time, series
ORDER BY time, series
