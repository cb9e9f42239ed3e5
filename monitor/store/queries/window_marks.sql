-- How often something was written that may count in a window of predictions: to the profiles of its hours, and labels that became
-- known up to a day before it, and until a time.
SELECT sum(written) AS marks
FROM
(
    SELECT profile_marks.marks AS written
    FROM profile_marks
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT label_marks.marks
    FROM label_marks
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')} - INTERVAL 1 DAY) AND hour < {labels_until:DateTime64(3, 'UTC')}
)
