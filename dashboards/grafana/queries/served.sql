SELECT DISTINCT hex({column}) AS value, {column} AS text
FROM profiles
WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
ORDER BY text
