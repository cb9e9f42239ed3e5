-- Where the first window begins of which something was found in rows. No row where there is none.
SELECT min(start) AS first
FROM findings
WHERE environment = {environment:String} AND model = {model:String} AND n > 0
HAVING count() > 0
