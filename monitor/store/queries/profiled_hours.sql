-- The hours with profiles that a span touches, how often they were written, their generation that still holds (0 where none
-- does), when it was made, the sealed sum that counts (0 where there is none), and all there ever were.
SELECT
    hour,
    sum(written) AS marks,
    if(max(seen) = marks, max(fold), 0) AS generation,
    max(made) AS folded,
    argMax(seal, (sealed, seal)) AS base,
    arraySort(groupUniqArrayIf(seal, seal != 0)) AS seals
FROM
(
    SELECT
        hour, profile_marks.marks AS written, toUInt64(0) AS fold, toUInt64(0) AS seen, toDateTime64(0, 3, 'UTC') AS made,
        toUInt64(0) AS seal, toDateTime64(0, 3, 'UTC') AS sealed
    FROM profile_marks
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT hour, 0, profile_folds.generation, profile_folds.marks, profile_folds.folded, 0, toDateTime64(0, 3, 'UTC')
    FROM profile_folds FINAL
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT hour, 0, 0, 0, toDateTime64(0, 3, 'UTC'), profile_seals.generation, profile_seals.sealed
    FROM profile_seals
    WHERE environment = {environment:String} AND model = {model:String}
        AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
)
GROUP BY hour
HAVING marks > 0
ORDER BY hour
