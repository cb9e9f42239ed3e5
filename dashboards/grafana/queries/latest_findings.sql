SELECT *
FROM findings FINAL
WHERE {scope} AND $__timeFilter_ms(end)
ORDER BY end DESC
LIMIT 1 BY environment, model, detector, version, server, segment, feature, without, baseline, end - start
