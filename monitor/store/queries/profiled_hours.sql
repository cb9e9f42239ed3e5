-- The hours with profiles that a span touches, how often they were written, their generation that still holds (0 where none
-- does), and when it was made.
SELECT
    marked.hour AS hour,
    marked.marks AS marks,
    if(folds.marks = marked.marks, folds.generation, 0) AS generation,
    folds.folded AS folded
FROM
(
    SELECT hour, sum(marks) AS marks
    FROM profile_marks
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
    GROUP BY hour
) AS marked
LEFT JOIN
(
    SELECT hour, marks, generation, folded
    FROM profile_folds FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
) AS folds ON marked.hour = folds.hour
ORDER BY hour
