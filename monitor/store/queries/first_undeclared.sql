-- When each key that nobody declared came first in a span.
SELECT name, min(minute) AS first_seen
FROM undeclared_keys
WHERE environment = {environment:String} AND model = {model:String} AND name != ''
    AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
GROUP BY name
ORDER BY name
