SELECT min(minute) AS first_minute, max(minute) AS last_minute, count() AS profile_rows
FROM profiles
WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
