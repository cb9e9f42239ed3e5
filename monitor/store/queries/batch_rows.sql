-- The feature rows of one batch, in order.
SELECT *
FROM features FINAL
WHERE environment = {environment:String} AND model = {model:String} AND source = {source:String} AND batch = {batch:String}
ORDER BY row
