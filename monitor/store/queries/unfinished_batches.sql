-- Batches of a log that were counted by hour and have no record, where they begin within a range of offsets.
SELECT DISTINCT batch
FROM batch_hours
WHERE source = {source:String}
    AND toInt64OrZero(batch) >= {first:Int64} AND toInt64OrZero(batch) <= {last:Int64}
    AND batch NOT IN (SELECT batch FROM batches WHERE source = {source:String} AND first >= {first:Int64} AND first <= {last:Int64})
ORDER BY batch
