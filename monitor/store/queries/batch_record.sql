-- What a batch that was finished said of itself.
SELECT first, last, predictions, others, rejected, revision
FROM batches FINAL
WHERE source = {source:String} AND batch = {batch:String}
