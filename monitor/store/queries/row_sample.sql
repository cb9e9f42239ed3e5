-- A sample of the live feature rows of a span, one of each prediction, those first whose ids have the least hashes. Where
-- rows stand for unlike numbers of requests, the lighter ones are thinned out, so that each kept one stands for as many.
WITH
    (
        SELECT max(weight)
        FROM features
        WHERE environment = {environment:String} AND model = {model:String} AND role = 'live'
            AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    ) AS heaviest
SELECT prediction_id, schema_id, num, cat
FROM features
WHERE environment = {environment:String} AND model = {model:String} AND role = 'live'
    AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    AND prediction_id IN
    (
        SELECT prediction_id
        FROM features
        WHERE environment = {environment:String} AND model = {model:String} AND role = 'live'
            AND timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
            AND toFloat64(cityHash64('kept by weight', prediction_id)) / 18446744073709551616 * heaviest <= weight
        GROUP BY prediction_id
        ORDER BY cityHash64(prediction_id), prediction_id
        LIMIT {most:UInt64}
    )
ORDER BY cityHash64(prediction_id), prediction_id, timestamp, source, batch, row
LIMIT 1 BY prediction_id
