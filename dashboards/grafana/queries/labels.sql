SELECT $__timeInterval_ms(timestamp) AS time, {series} AS series, count() * 60 / $__interval_s AS labels
FROM labels FINAL
WHERE {scope} AND $__timeFilter_ms(timestamp)
GROUP BY time, series
ORDER BY time, series
