-- Replays of dead letters (since those were last removed) that do not hold as many events as there are letters of their batches that were replayed.
SELECT source, batch, sum(taken) AS events, sum(replayed) AS letters
FROM
(
    SELECT source, batch, predictions + others AS taken, 0 AS replayed
    FROM batches FINAL
    WHERE startsWith(source, 'dead_letters/') AND received >= {letters_since:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT concat('dead_letters/', source), batch, 0, 1
    FROM dead_letters FINAL
    WHERE received >= {letters_since:DateTime64(3, 'UTC')}
        AND (source, batch, row) IN (SELECT source, batch, row FROM replayed_letters)
        AND (source, batch, rejects_id) IN (SELECT source, batch, rejects_id FROM batches FINAL WHERE rejected > 0)
)
GROUP BY source, batch
HAVING events > letters
ORDER BY source, batch
