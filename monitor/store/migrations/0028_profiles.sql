-- Requests by the minute for people who write SQL: of hours whose batches may be gone their sum, spread over their minutes.
CREATE OR REPLACE VIEW `profiles` AS
SELECT environment, model, version, server, role, segment, minute, weight, toFloat64(n) AS n, toFloat64(failed) AS failed
FROM profile_batches FINAL
WHERE (environment, model, toDateTime64(toStartOfHour(minute), 3, 'UTC')) NOT IN (SELECT environment, model, hour FROM profile_seals)
UNION ALL
SELECT
    environment, model, version, server, role, segment,
    arrayJoin(arrayMap(i -> first_minute + toIntervalMinute(i), range(minutes))) AS minute,
    weight, n / minutes AS n, failed / minutes AS failed
FROM
(
    SELECT
        environment, model, version, server, role, segment, first_minute, weight, n, failed,
        toUInt64(dateDiff('minute', first_minute, last_minute) + 1) AS minutes
    FROM profile_hours FINAL
    WHERE (environment, model, hour) IN (SELECT environment, model, hour FROM profile_seals)
        AND (environment, model, hour, generation) IN (SELECT environment, model, hour, generation FROM profile_folds FINAL)
)
