-- The findings of the windows of one length that lie in a span, in the order of their windows: what policies look at.
SELECT
    start, end, id, version, server, segment, feature, without, detector, baseline, status, value, low, high, p_value,
    n, n_baseline, component, severity, effect_names, effect_values, message
FROM findings FINAL
WHERE environment = {environment:String} AND model = {model:String}
    AND end > {start:DateTime64(3, 'UTC')} AND end <= {end:DateTime64(3, 'UTC')} AND start >= {start:DateTime64(3, 'UTC')}
    AND dateDiff('millisecond', start, end) = {length_ms:Int64}
ORDER BY end, detector, severity DESC, version, server, segment, feature, without, id
