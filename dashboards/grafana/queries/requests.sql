SELECT $__timeInterval_ms(minute) AS time, {series} AS series, sum(n * weight) * 60 / $__interval_s AS requests
FROM profiles
WHERE {scope} AND role = 'live' AND $__timeFilter_ms(minute)
GROUP BY time, series
ORDER BY time, series
