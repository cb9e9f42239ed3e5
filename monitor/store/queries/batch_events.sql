-- How many events each hour of each batch of a model had.
SELECT hour, source, batch, events
FROM batch_hours FINAL
WHERE environment = {environment:String} AND model = {model:String}
