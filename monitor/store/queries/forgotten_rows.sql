-- What the hours of batches count, without the rows of forgotten predictions that are still there. Where as many are counted
-- as will be left, they were taken off already.
SELECT
    counted.hour AS hour,
    counted.source AS source,
    counted.batch AS batch,
    counted.events AS events,
    toUInt64(counted.prediction_rows - if(counted.prediction_rows = there.kept_predictions, 0, least(counted.prediction_rows, there.gone_predictions)))
        AS prediction_rows,
    toUInt64(counted.feature_rows - if(counted.feature_rows = there.kept_features, 0, least(counted.feature_rows, there.gone_features)))
        AS feature_rows
FROM
(
    SELECT
        hour, source, batch,
        countIf(gone AND is_prediction) AS gone_predictions,
        countIf(NOT gone AND is_prediction) AS kept_predictions,
        countIf(gone AND NOT is_prediction) AS gone_features,
        countIf(NOT gone AND NOT is_prediction) AS kept_features
    FROM
    (
        SELECT
            toStartOfHour(timestamp) AS hour, source, batch, 1 AS is_prediction,
            hex(SHA256(prediction_id)) IN (
                SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String}) AS gone
        FROM predictions FINAL
        WHERE environment = {environment:String} AND model = {model:String}
        UNION ALL
        SELECT
            toStartOfHour(timestamp), source, batch, 0,
            hex(SHA256(prediction_id)) IN (
                SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})
        FROM features FINAL
        WHERE environment = {environment:String} AND model = {model:String}
    )
    GROUP BY hour, source, batch
    HAVING gone_predictions + gone_features > 0
) AS there
INNER JOIN
(
    SELECT hour, source, batch, events, prediction_rows, feature_rows
    FROM batch_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
) AS counted ON there.hour = counted.hour AND there.source = counted.source AND there.batch = counted.batch
ORDER BY hour, source, batch
