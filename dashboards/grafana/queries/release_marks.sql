SELECT
    timestamp AS time,
    concat(model, ': ', action, ' ', version) AS title,
    arrayStringConcat(arrayFilter(part -> part != '', [reason, released_by, arrayStringConcat(servers, ', ')]), ', ') AS text,
    action AS tags
FROM releases FINAL
WHERE {scope} AND $__timeFilter_ms(timestamp)
ORDER BY time
LIMIT 500
