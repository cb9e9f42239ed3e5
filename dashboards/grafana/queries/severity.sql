SELECT end AS time, {series} AS series, max(severity) AS largest
FROM findings FINAL
WHERE {scope} AND detector = {detector} AND status = 'measured' AND $__timeFilter_ms(end)
GROUP BY time, series
ORDER BY time, series
