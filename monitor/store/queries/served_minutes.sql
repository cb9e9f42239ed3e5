-- What served in each minute of a span.
SELECT minute, version, server, sum(n) AS rows
FROM profile_batches FINAL
WHERE environment = {environment:String} AND model = {model:String} AND segment = '' AND role = 'live'
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY minute, version, server
ORDER BY minute, server, version
