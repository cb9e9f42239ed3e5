SELECT DISTINCT hex(environment) AS value, environment AS text
FROM
(
    SELECT DISTINCT environment FROM profiles
    UNION ALL SELECT DISTINCT environment FROM health
    UNION ALL SELECT DISTINCT environment FROM findings
    UNION ALL SELECT DISTINCT environment FROM labels
)
ORDER BY text
