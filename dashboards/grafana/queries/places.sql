SELECT
    environment AS "Environment",
    model AS "Model",
    server AS "Server",
    version AS "Version",
    if(serving, 'yes', 'no') AS "Serves",
    requests AS "Requests",
    first_seen AS "First seen",
    last_seen AS "Last seen"
FROM
(
    SELECT
        environment,
        model,
        server,
        version,
        sum(n * weight) AS requests,
        min(minute) AS first_seen,
        max(minute) AS last_seen,
        last_seen + INTERVAL 5 MINUTE > max(last_seen) OVER (PARTITION BY environment, model, server)
            AND last_seen + INTERVAL 1 MINUTE > $__toTime_ms - INTERVAL 1 HOUR AS serving
    FROM profiles
    WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
    GROUP BY environment, model, server, version
)
WHERE {shown}
ORDER BY environment, model, server, last_seen DESC, version
LIMIT 1000
