-- Which keys that nobody declared came in a window, and how often, by version and server.
SELECT version, server, name, sum(n) AS events
FROM undeclared_keys FINAL
WHERE environment = {environment:String} AND model = {model:String} AND name != ''
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY version, server, name
ORDER BY version, server, name
