SELECT $__timeInterval_ms(minute) AS time, {series} AS series, sum(failed * weight) / sum(n * weight) AS errors
FROM profiles
WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
GROUP BY time, series
ORDER BY time, series
