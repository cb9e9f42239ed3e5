-- The hours that a span touches whose batches may be gone: the sealed sum that counts, and all there ever were.
SELECT hour, argMax(generation, (sealed, generation)) AS base, arraySort(groupUniqArray(generation)) AS seals
FROM profile_seals
WHERE environment = {environment:String} AND model = {model:String}
    AND hour >= toStartOfHour({start:DateTime64(3, 'UTC')}) AND hour < {end:DateTime64(3, 'UTC')}
GROUP BY hour
ORDER BY hour
