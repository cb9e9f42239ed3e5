SELECT
    traffic.environment AS "Environment",
    traffic.model AS "Model",
    versions AS "Versions",
    servers AS "Servers",
    requests AS "Requests",
    errors AS "Share of errors",
    nullIf(p95, 0) AS "Latency p95",
    severity AS "Largest change",
    last_seen AS "Last seen",
    concat({uid_prefix}, lower(substring(hex(SHA256(concat(traffic.environment, '\x1F', traffic.model))), 1, 24))) AS "Dashboard"
FROM
(
    SELECT
        environment,
        model,
        arrayStringConcat(arraySort(groupUniqArray(version)), ', ') AS versions,
        uniqExact(server) AS servers,
        sum(n * weight) AS requests,
        sum(failed * weight) / sum(n * weight) AS errors,
        max(minute) AS last_seen
    FROM profiles
    WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
    GROUP BY environment, model
) AS traffic
LEFT JOIN
(
    SELECT environment, model, quantileTDigestWeighted(0.95)(latency_ms, toUInt64(round(100 * weight))) AS p95
    FROM predictions FINAL
    WHERE {scope} AND role = 'live' AND isFinite(latency_ms) AND $__timeFilter_ms(timestamp)
    GROUP BY environment, model
) AS speed ON traffic.environment = speed.environment AND traffic.model = speed.model
LEFT JOIN
(
    SELECT environment, model, max(toNullable(severity)) AS severity
    FROM ({latest_findings})
    WHERE status = 'measured'
    GROUP BY environment, model
) AS changes ON traffic.environment = changes.environment AND traffic.model = changes.model
ORDER BY severity DESC, traffic.environment, traffic.model
