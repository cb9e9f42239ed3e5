SELECT end AS time, version AS series, {columns}
FROM findings FINAL
WHERE {scope} AND detector = 'accuracy' AND server = '' AND segment = '' AND status IN ({statuses}) AND $__timeFilter_ms(end)
ORDER BY time, series
