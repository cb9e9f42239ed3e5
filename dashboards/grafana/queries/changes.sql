SELECT
    environment AS "Environment",
    model AS "Model",
    detector AS "Detector",
    feature AS "Feature",
    component AS "Change",
    version AS "Version",
    server AS "Server",
    arrayStringConcat(without, ', ') AS "Without",
    severity AS "Severity",
    value AS "Value",
    p_value AS "p",
    n AS "Rows",
    baseline AS "Against",
    start AS "From",
    end AS "To",
    message AS "Message"
FROM ({latest_findings})
WHERE status = 'error' OR status = 'measured' AND (severity >= 1 OR detector = 'accuracy_drop' AND low > 0)
ORDER BY
    status = 'error' DESC,
    component IN ('schema', 'missing', 'unusable', 'unseen', 'stuck', 'units') DESC,
    severity DESC,
    end DESC,
    id
LIMIT 200
