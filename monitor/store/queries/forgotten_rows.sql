-- What the hours of batches count, without the rows of forgotten predictions that are still there.
SELECT
    hour, source, batch,
    any(events) AS events,
    any(counted_predictions) - sum(gone_predictions) AS prediction_rows,
    any(counted_features) - sum(gone_features) AS feature_rows
FROM
(
    SELECT toStartOfHour(timestamp) AS hour, source, batch, 1 AS gone_predictions, 0 AS gone_features
    FROM predictions FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND hex(SHA256(prediction_id)) IN (
        SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})
    UNION ALL
    SELECT toStartOfHour(timestamp), source, batch, 0, 1
    FROM features FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND hex(SHA256(prediction_id)) IN (
        SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})
) AS gone
INNER JOIN
(
    SELECT hour, source, batch, events, prediction_rows AS counted_predictions, feature_rows AS counted_features
    FROM batch_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
) AS counted USING (hour, source, batch)
GROUP BY hour, source, batch
ORDER BY hour, source, batch
