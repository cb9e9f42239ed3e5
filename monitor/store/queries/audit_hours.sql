-- The hours of batches whose profiles or rows are not as many as were counted when the batch was taken in, or whose undeclared
-- keys are fewer than the profiles count. (A feature that is declared later may be an undeclared key no more in a profile.)
SELECT
    hour,
    source,
    batch,
    sum(counted) AS events,
    sum(profiled) AS profiled_events,
    sum(counted_predictions) AS predictions,
    sum(kept_predictions) AS prediction_rows,
    sum(counted_features) AS features,
    sum(kept_features) AS feature_rows,
    sum(undeclared) AS undeclared_keys,
    sum(named) AS named_keys
FROM
(
    SELECT
        hour, source, batch, events AS counted, 0 AS profiled,
        prediction_rows AS counted_predictions, 0 AS kept_predictions, feature_rows AS counted_features, 0 AS kept_features,
        0 AS undeclared, 0 AS named
    FROM batch_hours FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT
        toStartOfHour(minute), source, batch, 0, profile_batches.n, 0, 0, 0, 0,
        if(role = 'live', profile_batches.undeclared, 0), 0
    FROM profile_batches FINAL
    WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
        AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(timestamp), source, batch, 0, 0, 0, 1, 0, 0, 0, 0
    FROM predictions FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(timestamp), source, batch, 0, 0, 0, 0, 0, 1, 0, 0
    FROM features FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT toStartOfHour(minute), source, batch, 0, 0, 0, 0, 0, 0, 0, n
    FROM undeclared_keys FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND minute >= {start:DateTime64(3, 'UTC')} AND minute < {end:DateTime64(3, 'UTC')}
)
GROUP BY hour, source, batch
HAVING events != profiled_events OR predictions != prediction_rows OR features != feature_rows OR undeclared_keys > named_keys
ORDER BY hour, source, batch
