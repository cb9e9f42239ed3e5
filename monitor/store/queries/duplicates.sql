-- How many predictions of a span of event time are there more than once: the same id, of the same version, in the same role.
SELECT environment, model, toUInt64(sum(times - 1)) AS duplicates
FROM
(
    SELECT environment, model, count() AS times
    FROM predictions FINAL
    WHERE timestamp >= {start:DateTime64(3, 'UTC')} AND timestamp < {end:DateTime64(3, 'UTC')}
    GROUP BY environment, model, version, role, prediction_id
)
GROUP BY environment, model
ORDER BY environment, model
SETTINGS max_bytes_before_external_group_by = 100000000
