SELECT
    timestamp AS "Time",
    action AS "Action",
    version AS "Version",
    arrayStringConcat(servers, ', ') AS "Servers",
    released_by AS "By",
    reason AS "Reason",
    artifact_digest AS "Artifact"
FROM releases FINAL
WHERE {scope} AND $__timeFilter_ms(timestamp)
ORDER BY timestamp DESC
LIMIT 200
