SELECT end AS time, if(version = '', feature, concat(feature, ' (', version, ')')) AS series, {amount} AS amount
FROM findings FINAL
WHERE {scope} AND detector = 'drift' AND status = 'measured' AND server = '' AND segment = '' AND empty(without)
    AND isFinite(amount) AND $__timeFilter_ms(end)
