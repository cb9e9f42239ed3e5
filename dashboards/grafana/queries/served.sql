SELECT hex(text) AS value, text
FROM
(
    SELECT {column} AS text
    FROM profiles
    WHERE {scope} AND role = 'live' AND segment = ''
    GROUP BY text
    ORDER BY max(minute) DESC
    LIMIT 1000
)
ORDER BY text
