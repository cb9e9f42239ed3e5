SELECT
    toString(minutes) AS value,
    multiIf(minutes % 1440 = 0, concat(toString(intDiv(minutes, 1440)), ' d'),
        minutes % 60 = 0, concat(toString(intDiv(minutes, 60)), ' h'), concat(value, ' min')) AS text
FROM (SELECT DISTINCT dateDiff('minute', start, end) AS minutes FROM findings WHERE {scope} AND $__timeFilter_ms(end))
ORDER BY minutes
