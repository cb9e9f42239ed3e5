-- When the labels of a batch became known.
SELECT DISTINCT environment, model, timestamp
FROM labels
WHERE source = {source:String} AND batch = {batch:String}
ORDER BY environment, model, timestamp
