-- Weighted losses per version and server for the predictions of a window. A label counts when it was known at most
-- label_delay after its prediction, so that versions are compared at equal label age; of several the latest counts,
-- and a retraction takes it away.
SELECT
    version,
    server,
    count() AS predictions,
    countIf(has_label) AS labelled,
    sum(weight) AS weights,
    sumIf(weight, has_label) AS labelled_weights,
    sumIf(weight * weight, has_label) AS labelled_weight_squares,
    sumIf(weight * loss, has_label) AS losses,
    sumIf(weight * loss * loss, has_label) AS loss_squares
FROM
(
    WITH truth.prediction_id != '' AND truth.timestamp <= served.at + toIntervalMillisecond({label_delay_ms:Int64}) AS in_time
    SELECT
        any(first_answer) AS answer,
        tupleElement(answer, 1) AS version,
        tupleElement(answer, 2) AS server,
        tupleElement(answer, 5) AS weight,
        argMaxIf((truth.label, truth.number, truth.retracted), (truth.timestamp, truth.received, truth.row), in_time) AS latest,
        max(in_time) AND NOT tupleElement(latest, 3)
            AND ({task:String} = 'classification' OR isFinite(tupleElement(latest, 2) - tupleElement(answer, 4))) AS has_label,
        if({task:String} = 'classification',
            toFloat64(tupleElement(answer, 3) != tupleElement(latest, 1)),
            abs(tupleElement(answer, 4) - tupleElement(latest, 2))) AS loss
    FROM
    (
        SELECT
            prediction_id,
            min(timestamp) AS at,
            argMin((version, server, label, score, weight), (timestamp, batch, row)) AS first_answer
        FROM predictions FINAL
        WHERE environment = {environment:String} AND model = {model:String} AND role = 'live' AND NOT failed
            AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
        GROUP BY prediction_id
    ) AS served
    LEFT JOIN
    (
        SELECT prediction_id, label, number, retracted, timestamp, received, row
        FROM labels FINAL
        WHERE environment = {environment:String} AND model = {model:String}
            AND timestamp >= {start:DateTime64(3, 'UTC')} - INTERVAL 1 DAY
            AND timestamp <= {end:DateTime64(3, 'UTC')} + toIntervalMillisecond({label_delay_ms:Int64})
    ) AS truth ON served.prediction_id = truth.prediction_id
    GROUP BY served.prediction_id
)
GROUP BY version, server
ORDER BY version, server
