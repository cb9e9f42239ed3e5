-- Which minutes of which models a batch has profiles in.
SELECT DISTINCT environment, model, minute
FROM profile_batches
WHERE source = {source:String} AND batch = {batch:String}
