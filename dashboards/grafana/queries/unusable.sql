SELECT time, feature AS series, sum(of_feature) / sum(of_all) AS amount
FROM
(
    SELECT
        $__timeInterval_ms(timestamp) AS time,
        schema_id,
        sum(weight) AS of_all,
        sumForEach(arrayConcat(
            arrayMap(x -> if(isFinite(x), 0, weight), num),
            arrayMap(x -> if(isNull(x), weight, 0), cat))) AS unusable
    FROM features FINAL
    WHERE {scope} AND role = 'live' AND $__timeFilter_ms(timestamp)
    GROUP BY time, schema_id
) AS counted
INNER JOIN
(
    SELECT schema_id, arrayConcat(num_names, cat_names) AS names
    FROM schemas FINAL
    WHERE {model}
) AS named ON counted.schema_id = named.schema_id
ARRAY JOIN names AS feature, unusable AS of_feature
WHERE {features}
GROUP BY time, series
