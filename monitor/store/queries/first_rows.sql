-- The feature rows of a model, oldest first.
SELECT *
FROM features FINAL
WHERE environment = {environment:String} AND model = {model:String}
ORDER BY timestamp, source, batch, row
LIMIT {most:UInt64}
