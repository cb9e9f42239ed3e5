-- What the scores of comparisons were in a span, in those windows of one length that begin at one phase of it, and so lie side by side; one
-- row for each component. Against a reference they tell nothing: it stays what it is, so a change that lasts would become usual.
SELECT
    start,
    detector,
    baseline,
    version,
    server,
    segment,
    feature,
    exposure,
    score_name,
    score,
    calibrated
FROM
(
    SELECT start, detector, baseline, version, server, segment, feature, exposure, score_names, score_values, score_calibrated
    FROM findings FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND end > {since:DateTime64(3, 'UTC')} AND end <= {until:DateTime64(3, 'UTC')}
        AND dateDiff('second', start, end) = {seconds:Int64} AND toUnixTimestamp(start) % {seconds:Int64} = {phase:Int64}
        AND (detector = 'drift' OR detector IN ('server_outlier', 'version_contrast') AND end > {contrasts_since:DateTime64(3, 'UTC')})
        AND NOT startsWith(baseline, 'reference:') AND empty(without) AND notEmpty(score_names)
)
ARRAY JOIN score_names AS score_name, score_values AS score, score_calibrated AS calibrated
ORDER BY start
