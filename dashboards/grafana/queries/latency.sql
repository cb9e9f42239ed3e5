SELECT time, series, percentiles[1] AS p50, percentiles[2] AS p95
FROM
(
    SELECT
        $__timeInterval_ms(timestamp) AS time,
        {series} AS series,
        quantilesTDigestWeighted(0.5, 0.95)(latency_ms, toUInt64(round(100 * weight))) AS percentiles
    FROM predictions FINAL
    WHERE {scope} AND role = 'live' AND isFinite(latency_ms) AND $__timeFilter_ms(timestamp)
    GROUP BY time, series
)
ORDER BY time, series
