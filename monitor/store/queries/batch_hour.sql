-- What was counted of an hour of a batch when it was taken in.
SELECT events, feature_rows
FROM batch_hours FINAL
WHERE environment = {environment:String} AND model = {model:String} AND hour = {hour:DateTime64(3, 'UTC')}
    AND source = {source:String} AND batch = {batch:String}
