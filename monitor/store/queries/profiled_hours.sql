-- The hours with profiles in a span, how often they were written, and their generation that still holds; 0 where none does.
SELECT marked.hour AS hour, marked.marks AS marks, if(folds.marks = marked.marks, folds.generation, 0) AS generation
FROM
(
    SELECT hour, sum(marks) AS marks
    FROM profile_marks
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
    GROUP BY hour
) AS marked
LEFT JOIN
(
    SELECT hour, marks, generation
    FROM profile_folds FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
) AS folds ON marked.hour = folds.hour
ORDER BY hour
