SELECT DISTINCT hex(environment) AS value, environment AS text
FROM profiles
WHERE $__timeFilter_ms(minute)
ORDER BY text
