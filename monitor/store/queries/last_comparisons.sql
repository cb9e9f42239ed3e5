-- What was tested in the last window of each detector and length: how many comparisons, and over how many features and places. What is held
-- against a limit has its p-value from the policy.
WITH last AS
(
    SELECT detector, dateDiff('second', start, end) AS seconds, max(findings.end) AS latest
    FROM findings
    WHERE environment = {environment:String} AND model = {model:String}
        AND (isFinite(p_value) OR detector IN ('latency', 'errors', 'health') AND status = 'measured')
    GROUP BY detector, seconds
)
SELECT
    detector,
    toInt64(dateDiff('second', start, end)) AS seconds,
    count() AS comparisons,
    uniqExact(feature) AS features,
    uniqExact(version) AS versions,
    uniqExact(server) AS servers,
    uniqExact(segment) AS segments,
    countIf(mode = 'history') AS calibrated
FROM findings FINAL
WHERE environment = {environment:String} AND model = {model:String} AND empty(without)
    AND (isFinite(p_value) OR detector IN ('latency', 'errors', 'health') AND status = 'measured')
    AND (detector, dateDiff('second', start, end), end) IN (SELECT detector, seconds, latest FROM last)
GROUP BY detector, seconds
ORDER BY detector, seconds
