-- How many events the sums of hours hold, by generation.
SELECT hour, generation, sum(n) AS events
FROM profile_hours FINAL
WHERE environment = {environment:String} AND model = {model:String} AND segment = ''
    AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
    AND generation IN {generations:Array(UInt64)}
GROUP BY hour, generation
ORDER BY hour, generation
