SELECT $__timeInterval_ms(timestamp) AS time, {series} AS series, countIf(NOT ok) / count() AS failures
FROM health FINAL
WHERE {scope} AND $__timeFilter_ms(timestamp)
GROUP BY time, series
ORDER BY time, series
