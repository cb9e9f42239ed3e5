SELECT $__timeInterval_ms(received) AS time, reason AS series, count() * 60 / $__interval_s AS lines
FROM dead_letters FINAL
WHERE $__timeFilter_ms(received)
GROUP BY time, series
ORDER BY time, series
