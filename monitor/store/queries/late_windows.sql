-- The judged windows of all models whose hours were written to since, as they were judged, and the marks of their hours now: those of
-- their events, and for accuracy those of labels that may count (known up to a day before, and until they are due).
SELECT environment, model, kind, start, end, any(marks) AS marks, any(events) AS events, any(digest) AS digest, sum(hour_marks) AS marks_now
FROM
(
    SELECT
        environment, model, kind, start, end, marks, events, digest, 'events' AS what,
        arrayJoin(range(intDiv(toUnixTimestamp(start), 3600), intDiv(toUnixTimestamp(end) - 1, 3600) + 1)) AS hour_number
    FROM judgements FINAL
    WHERE watched_until > {now:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT
        environment, model, kind, start, end, marks, events, digest, 'labels' AS what,
        arrayJoin(range(
            intDiv(toUnixTimestamp(start - INTERVAL 1 DAY), 3600), intDiv(toUnixTimestamp(labels_until) - 1, 3600) + 1)) AS hour_number
    FROM judgements FINAL
    WHERE watched_until > {now:DateTime64(3, 'UTC')} AND kind = 'labels'
) AS judged
LEFT JOIN
(
    SELECT environment, model, 'events' AS what, intDiv(toUnixTimestamp(hour), 3600) AS hour_number, sum(profile_marks.marks) AS hour_marks
    FROM profile_marks
    WHERE hour >= (SELECT toStartOfHour(min(start)) FROM judgements WHERE watched_until > {now:DateTime64(3, 'UTC')})
    GROUP BY environment, model, hour_number
    UNION ALL
    SELECT environment, model, 'labels' AS what, intDiv(toUnixTimestamp(hour), 3600) AS hour_number, sum(label_marks.marks) AS hour_marks
    FROM label_marks
    WHERE hour >= (SELECT toStartOfHour(min(start) - INTERVAL 1 DAY) FROM judgements WHERE watched_until > {now:DateTime64(3, 'UTC')})
    GROUP BY environment, model, hour_number
) AS written USING (environment, model, what, hour_number)
GROUP BY environment, model, kind, start, end
HAVING marks_now != marks
ORDER BY end, start, environment, model, kind
