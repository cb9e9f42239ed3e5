-- The hours of batches whose profiles or rows are not as many as were counted when the batch was taken in.
SELECT
    hour,
    source,
    batch,
    sum(counted) AS events,
    if(sum(sealed) > 0, events, sum(profiled)) AS profiled_events,
    sum(counted_predictions) AS predictions,
    sum(kept_predictions) AS prediction_rows,
    sum(counted_features) AS features,
    sum(kept_features) AS feature_rows
FROM
(
    SELECT
        hour, source, batch, events AS counted, 0 AS profiled,
        prediction_rows AS counted_predictions, 0 AS kept_predictions, feature_rows AS counted_features, 0 AS kept_features,
        0 AS sealed
    FROM batch_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(minute), source, batch, 0, n, 0, 0, 0, 0, 0
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
        AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(timestamp), source, batch, 0, 0, 0, 1, 0, 0, 0
    FROM predictions FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(timestamp), source, batch, 0, 0, 0, 0, 0, 1, 0
    FROM features FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT hour, source, batch, 0, 0, 0, 0, 0, 0, 1
    FROM sealed_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
        AND (hour, generation) IN (
            SELECT hour, generation FROM profile_seals WHERE environment = {environment:String} AND model = {model:String})
)
GROUP BY hour, source, batch
HAVING events != profiled_events OR predictions != prediction_rows OR features != feature_rows
ORDER BY hour, source, batch
