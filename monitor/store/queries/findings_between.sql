-- The findings of the windows of one length that lie in a span, in the order of their windows: what policies look at. Of a window that was judged
-- again only the last time counts, as it may have been held against something else before.
SELECT
    start, end, id, version, server, segment, feature, without, detector, baseline, status, value, low, high, p_value,
    n, n_baseline, component, severity, effect_names, effect_values, message
FROM findings FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND end > {start:DateTime64(3, 'UTC')} AND end <= {end:DateTime64(3, 'UTC')} AND start >= {start:DateTime64(3, 'UTC')}
    AND dateDiff('millisecond', start, end) = {length_ms:Int64}
    AND (start, detector, measured) IN
    (
        SELECT start, detector, max(measured)
        FROM findings
        WHERE environment = {environment:String} AND model = {model:String}
            AND end > {start:DateTime64(3, 'UTC')} AND end <= {end:DateTime64(3, 'UTC')}
            AND dateDiff('millisecond', start, end) = {length_ms:Int64}
        GROUP BY start, detector
    )
ORDER BY end, detector, severity DESC, version, server, segment, feature, without, id
