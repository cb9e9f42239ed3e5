-- The hours of models that a batch has counts in.
SELECT DISTINCT environment, model, hour
FROM
(
    SELECT environment, model, hour
    FROM batch_hours
    WHERE source = {source:String} AND batch = {batch:String}
    UNION ALL
    SELECT environment, model, toDateTime64(toStartOfHour(minute), 3, 'UTC')
    FROM profile_batches
    WHERE source = {source:String} AND batch = {batch:String}
)
ORDER BY environment, model, hour
