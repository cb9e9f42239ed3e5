SELECT time, series, amount AS {column}
FROM
(
    SELECT *, dense_rank() OVER (ORDER BY peak DESC, series) AS place
    FROM (SELECT *, max(abs(amount)) OVER (PARTITION BY series) AS peak FROM ({rows}))
)
WHERE place <= 12
ORDER BY time, series
