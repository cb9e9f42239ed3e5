-- The judged windows of all models whose hours were written to since, as they were judged, and the marks of their hours now: those of
-- their events, and for accuracy those of labels that may count (known up to a day before, and until they are due).
-- All marks up to an hour are added up, so that a window is the difference of two sums, however long it is.
WITH (SELECT toStartOfHour(min(start)) FROM judgements WHERE watched_until > {now:DateTime64(3, 'UTC')}) AS first_hour
SELECT environment, model, kind, start, end, any(marks) AS marks, any(events) AS events, any(digest) AS digest,
    toUInt64(sum(sign * toInt64(marks_until))) AS marks_now
FROM
(
    SELECT
        environment, model, kind, start, end, marks, events, digest,
        arrayJoin(arrayConcat(
            [(1, 'events', end), (-1, 'events', toDateTime64(toStartOfHour(start), 3, 'UTC'))],
            if(kind = 'labels',
                [(1, 'labels', labels_until), (-1, 'labels', toDateTime64(toStartOfHour(start - INTERVAL 1 DAY), 3, 'UTC'))],
                []))) AS point,
        tupleElement(point, 1) AS sign, tupleElement(point, 2) AS what, tupleElement(point, 3) - INTERVAL 1 MILLISECOND AS at
    FROM judgements FINAL
    WHERE watched_until > {now:DateTime64(3, 'UTC')}
) AS judged
ASOF LEFT JOIN
(
    SELECT environment, model, what, hour AS at, sum(hour_marks) OVER (PARTITION BY environment, model, what ORDER BY hour) AS marks_until
    FROM
    (
        SELECT environment, model, 'events' AS what, hour, sum(profile_marks.marks) AS hour_marks
        FROM profile_marks
        WHERE hour >= first_hour
        GROUP BY environment, model, hour
        UNION ALL
        SELECT environment, model, 'labels' AS what, hour, sum(label_marks.marks) AS hour_marks
        FROM label_marks
        WHERE hour >= first_hour - INTERVAL 1 DAY
        GROUP BY environment, model, hour
    )
) AS written USING (environment, model, what, at)
GROUP BY environment, model, kind, start, end
HAVING marks_now != marks
ORDER BY end, start, environment, model, kind
