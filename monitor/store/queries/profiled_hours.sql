-- The hours with profiles that a span touches, how often they were written, their generation that still holds (0 where none
-- does), and of those whose batches may be gone the latest sum and all of them.
SELECT
    marked.hour AS hour,
    marked.marks AS marks,
    if(folds.marks = marked.marks, folds.generation, 0) AS generation,
    folds.folded AS folded,
    sealed.base AS base,
    sealed.seals AS seals
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
LEFT JOIN
(
    SELECT hour, argMax(generation, (sealed, generation)) AS base, arraySort(groupUniqArray(generation)) AS seals
    FROM profile_seals
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
    GROUP BY hour
) AS sealed ON marked.hour = sealed.hour
ORDER BY hour
