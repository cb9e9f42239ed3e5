-- Up to which time each topic is taken in, in all of its partitions; of a topic that was made anew, the new one.
SELECT topic, argMax(complete_until, written) AS complete_until
FROM
(
    SELECT topic, log, min(complete_until) AS complete_until, max(written) AS written
    FROM progress FINAL
    GROUP BY topic, log
)
GROUP BY topic
ORDER BY topic
