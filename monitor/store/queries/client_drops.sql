-- What clients reported lost in a span of time. A report may have waited on a pod's disk, though hardly for a day.
SELECT environment, model, version, server, sum(resource_values[indexOf(resource_names, 'telltale_dropped')]) AS dropped
FROM health FINAL
WHERE timestamp >= {start:DateTime64(3, 'UTC')} - INTERVAL 1 DAY AND has(resource_names, 'telltale_dropped')
    AND received >= {start:DateTime64(3, 'UTC')} AND received < {end:DateTime64(3, 'UTC')}
GROUP BY environment, model, version, server
ORDER BY environment, model, version, server
