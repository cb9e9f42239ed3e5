-- Which version served on which server, how much, and when.
SELECT
    version,
    server,
    sum(n) AS rows,
    sum(n * weight) AS requests,
    min(minute) AS first_seen,
    max(minute) AS last_seen
FROM profiles FINAL
WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND role = 'live'
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY version, server
ORDER BY server, first_seen, version
