-- The hours in whose sealed sums a batch is.
SELECT DISTINCT environment, model, hour, generation
FROM sealed_batches
WHERE source = {source:String} AND batch = {batch:String}
ORDER BY environment, model, hour, generation
