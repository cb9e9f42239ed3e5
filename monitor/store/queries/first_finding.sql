-- Where the first window begins of which something was found. No row where there is none.
SELECT min(start) AS first
FROM findings
WHERE environment = {environment:String} AND model = {model:String}
HAVING count() > 0
