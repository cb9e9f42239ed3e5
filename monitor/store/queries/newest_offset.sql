-- Where the newest finished batch of a log begins.
SELECT max(first) AS first
FROM batches
WHERE source = {source:String}
