SELECT first, last
FROM batches FINAL
WHERE source = {source:String} AND batch = {batch:String}
