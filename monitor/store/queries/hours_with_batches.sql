-- The hours of models of which there are profiles as batches brought them, and when they were last sealed.
SELECT environment, model, hour, max(at) AS sealed
FROM
(
    SELECT DISTINCT environment, model, toDateTime64(toStartOfHour(minute), 3, 'UTC') AS hour, toDateTime64(0, 3, 'UTC') AS at
    FROM profile_batches
    WHERE minute < {until:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT environment, model, hour, sealed
    FROM profile_seals
    WHERE (environment, model, hour) IN
    (
        SELECT DISTINCT environment, model, toDateTime64(toStartOfHour(minute), 3, 'UTC')
        FROM profile_batches
        WHERE minute < {until:DateTime64(3, 'UTC')}
    )
)
GROUP BY environment, model, hour
ORDER BY environment, model, hour
