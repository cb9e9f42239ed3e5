-- Up to when what is kept of a model was removed.
SELECT what, max(until) AS until
FROM removals
WHERE environment = {environment:String} AND model = {model:String}
GROUP BY what
ORDER BY what
