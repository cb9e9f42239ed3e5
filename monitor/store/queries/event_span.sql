SELECT min(first_minute) AS first_minute, max(last_minute) AS last_minute, sum(profiles) AS profile_rows
FROM
(
    SELECT min(minute) AS first_minute, max(minute) AS last_minute, count() AS profiles
    FROM profile_batches
    WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
    UNION ALL
    SELECT min(first_minute), max(last_minute), count()
    FROM profile_hours
    WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
)
WHERE profiles > 0
