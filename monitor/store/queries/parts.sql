-- In how many parts each table is, and how many the partition has that has the most: too many, and inserts are refused.
SELECT table, sum(here) AS parts, max(here) AS most
FROM
(
    SELECT table, partition_id, count() AS here
    FROM system.parts
    WHERE active AND database = currentDatabase()
    GROUP BY table, partition_id
)
GROUP BY table
ORDER BY table
